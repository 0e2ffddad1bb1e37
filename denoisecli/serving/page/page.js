import { json, remove, request, sentence, upload } from "./api.js";
import { changeText, figures, loudnessGain } from "./figures.js";
import { filesOfDrop, filesOfInput, onlyRecordings } from "./files.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { Spectrogram } from "./spectrogram.js";
import { channelsText, clock, count, decimal, size } from "./text.js";

const MAX_AT_ONCE = 3; // recordings that are being sent or wait on the server, so that others get a turn
const POLL_MS = 400;
const TOUCH_MS = 60_000; // at most: the server removes what nobody asks for
const STEP_SECONDS = 2;

const find = (id) => document.getElementById(id);
const recordings = []; // in the order of the list
let selected = null;
let picked = false; // by the person, and not by the page
let server = { reads: [], writes: [], max_bytes: 0 };
let models = [];
let spectrogram = null;

// Messages

let hideMessage = 0;
function showMessage(text, kind = "note") {
  const box = find("message");
  box.textContent = text;
  box.className = text ? `shown ${kind}` : "";
  clearTimeout(hideMessage);
  if (text) hideMessage = setTimeout(() => showMessage(""), kind === "error" ? 12_000 : 5000);
}

// Recordings

function makeItem(recording) {
  const item = document.createElement("li");
  const pick = document.createElement("button");
  pick.type = "button";
  pick.className = "pick";
  const name = document.createElement("span");
  name.className = "name";
  const folder = recording.name.lastIndexOf("/") + 1;
  if (folder) {
    const path = document.createElement("small");
    path.textContent = recording.name.slice(0, folder);
    name.append(path);
  }
  name.append(recording.name.slice(folder));
  const status = document.createElement("span");
  status.className = "status";
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.setAttribute("aria-label", `Progress of ${recording.name}`);
  pick.append(name, status, bar);
  pick.addEventListener("click", () => {
    picked = true;
    select(recording);
  });
  const away = document.createElement("button");
  away.type = "button";
  away.className = "away quiet";
  away.setAttribute("aria-label", `Remove ${recording.name}`);
  away.textContent = "×";
  away.addEventListener("click", () => removeRecording(recording));
  item.append(pick, away);
  Object.assign(recording, { item, pick, status, bar });
  find("list").append(item);
}

function statusText(recording) {
  switch (recording.stage) {
    case "queued": return "waiting to be sent";
    case "sending": return `sending, ${Math.floor(100 * recording.sent)} %`;
    case "waiting": return recording.before ? `${count(recording.before, "recording")} before it` : "next";
    case "working": return `cleaning, ${Math.floor(100 * recording.progress)} %`;
    case "done": return `${clock(recording.result.seconds, 0)} · ${changeText(recording.result)}`;
    default: return recording.error;
  }
}

function showItem(recording) {
  const { item, pick, status, bar, stage } = recording;
  item.dataset.stage = stage;
  pick.setAttribute("aria-current", recording === selected);
  const text = statusText(recording);
  if (status.textContent !== text) status.textContent = text;
  bar.hidden = !["sending", "working"].includes(stage);
  bar.value = stage === "sending" ? recording.sent : recording.progress;
}

function showList() {
  const any = recordings.length > 0;
  document.body.classList.toggle("empty", !any);
  find("recordings").hidden = !any;
  const done = recordings.filter(({ stage }) => stage === "done").length;
  find("list-heading").textContent = count(recordings.length, "recording");
  find("download-all").disabled = done === 0;
  find("download-all").hidden = recordings.length < 2;
  find("remove-all").hidden = recordings.length < 2;
  find("for-all").hidden = recordings.length < 2;
  recordings.forEach(showItem);
  document.title = any && done < recordings.length
    ? `${done} of ${recordings.length} · denoise`
    : "denoise";
}

function remember() {
  const kept = recordings
    .filter(({ id }) => id)
    .map(({ id, strength, format, loudness }) => ({ id, strength, format, loudness }));
  sessionStorage.setItem("recordings", JSON.stringify(kept));
}

function addRecording(fields) {
  const recording = {
    stage: "queued", sent: 0, progress: 0, before: 0, strength: 1, format: "", loudness: "", ...fields,
  };
  recordings.push(recording);
  makeItem(recording);
  if (!selected) select(recording);
  return recording;
}

function addFiles(files) {
  const kept = onlyRecordings(files, server.reads);
  const left = files.length - kept.length;
  if (!files.length) return;
  if (left) showMessage(kept.length ? `${count(left, "file")} left out: not recordings.` : "No recordings among these files.", kept.length ? "note" : "error");
  const model = find("new-model").value;
  for (const { file, name } of kept) {
    const recording = addRecording({ name, file, model });
    if (file.size > server.max_bytes) {
      fail(recording, `Larger than ${size(server.max_bytes)}, the limit of this server.`);
    }
  }
  sendNext();
  showList();
}

function fail(recording, text) {
  recording.stage = "failed";
  recording.error = text;
  recording.file = null;
  if (recording === selected) showPlayer();
}

function sendNext() {
  const busy = recordings.filter(({ stage }) => ["sending", "waiting", "working"].includes(stage)).length;
  const next = recordings.filter(({ stage, rest }) => stage === "queued" && !rest);
  next.slice(0, Math.max(MAX_AT_ONCE - busy, 0)).forEach(send);
}

async function send(recording) {
  recording.stage = "sending";
  recording.sent = 0;
  const sending = upload(recording.file, recording.name, recording.model, (share) => {
    recording.sent = share;
    refresh(recording);
  });
  recording.stop = sending.stop;
  try {
    take(recording, await sending.done);
    recording.file = null;
    remember();
    poll();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 503) { // the queue of the server is full
      recording.stage = "queued";
      recording.rest = true;
      setTimeout(() => {
        recording.rest = false;
        sendNext();
        showList();
      }, 1000 * (error.retry || 5));
    } else {
      fail(recording, error.message);
    }
  } finally {
    recording.stop = null;
  }
  sendNext();
  showList();
}

// Takes over what the server says about a recording.
function take(recording, job) {
  const before = recording.stage;
  if (before === "done" && job.stage === "done") return; // the result is known
  Object.assign(recording, { result: null, error: "", before: 0 }, job);
  if (recording.error) recording.error = sentence(recording.error);
  if (before !== recording.stage || recording.stage !== "done") refresh(recording);
  if (recording.stage === "done" && selected?.stage === "failed" && !picked) select(recording);
}

function refresh(recording) {
  showItem(recording);
  if (recording === selected) showPlayer();
}

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  for (;;) {
    const active = recordings.filter(({ id, stage }) => id && ["waiting", "working"].includes(stage));
    if (!active.length) break;
    try {
      await ask(active);
      if (find("message").classList.contains("lost")) showMessage("");
    } catch (error) {
      showMessage(error.message, "error lost");
    }
    sendNext();
    showList();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  polling = false;
}

async function ask(asked) {
  const query = asked.map(({ id }) => `id=${encodeURIComponent(id)}`).join("&");
  const { jobs } = await json(`/api/jobs?${query}`);
  const byId = new Map(jobs.map((job) => [job.id, job]));
  for (const recording of asked) {
    const job = byId.get(recording.id);
    if (job) take(recording, job);
    else fail(recording, "The server has removed this recording.");
  }
}

async function touch() {
  const kept = recordings.filter(({ id, stage }) => id && stage === "done");
  for (let start = 0; start < kept.length; start += 100) {
    await ask(kept.slice(start, start + 100)).catch(() => {});
  }
  showList();
}

function removeRecording(recording) {
  recording.stop?.();
  if (recording.id) remove(recording.id);
  const index = recordings.indexOf(recording);
  const hadFocus = recording.item.contains(document.activeElement);
  recordings.splice(index, 1);
  recording.item.remove();
  const neighbour = recordings[Math.min(index, recordings.length - 1)] || null;
  if (recording === selected) select(neighbour);
  if (hadFocus) (neighbour?.pick || find("choose-files")).focus();
  remember();
  sendNext();
  showList();
}

// The player

const player = new Player(showPosition, (text) => showMessage(text, "error"));

function select(recording) {
  if (recording === selected) return;
  selected = recording;
  spectrogram = null;
  player.unload();
  if (recording) recording.shown = null; // the player holds nothing now
  showPlayer();
  showList();
}

function showPlayer() {
  const recording = selected;
  find("player").hidden = !recording;
  if (!recording) return;
  find("title").textContent = recording.name.split("/").pop();
  const done = recording.stage === "done";
  find("wait").hidden = done;
  find("studio").hidden = !done;
  find("warnings").hidden = !done || !recording.result.warnings.length;
  if (!done) {
    find("facts").textContent = recording.file ? size(recording.file.size) : recording.bytes ? size(recording.bytes) : "";
    const failed = recording.stage === "failed";
    find("wait").classList.toggle("failed", failed);
    find("wait-text").textContent = failed ? recording.error : `${statusText(recording).replace(/^./, (letter) => letter.toUpperCase())}`;
    const bar = find("wait-progress");
    bar.hidden = failed;
    if (["sending", "working"].includes(recording.stage)) bar.value = recording.stage === "sending" ? recording.sent : recording.progress;
    else bar.removeAttribute("value");
    recording.shown = null;
    return;
  }
  const { result } = recording;
  if (recording.shown === result && find("studio").dataset.id === recording.id) return;
  recording.shown = result;
  find("studio").dataset.id = recording.id;
  showResult(recording);
}

function showResult(recording) {
  const { result, id } = recording;
  const facts = [
    clock(result.seconds),
    `${result.sample_rate / 1000} kHz`,
    channelsText(result.channels),
    size(recording.bytes),
    `cleaned in ${result.wall_seconds < 10 ? result.wall_seconds.toFixed(1) : Math.round(result.wall_seconds)} s`,
  ];
  find("facts").textContent = facts.join(" · ");
  find("warnings").replaceChildren(...result.warnings.map((text) => {
    const item = document.createElement("li");
    item.textContent = sentence(text);
    return item;
  }));
  player.load(`/api/jobs/${id}/preview?${encodeURIComponent(recording.model)}`, result.preview_channels, result.seconds);
  find("seek").max = result.seconds;
  find("strength").value = Math.round(100 * recording.strength);
  find("model").value = recording.model;
  find("format").value = recording.format;
  find("loudness").value = recording.loudness;
  const top = `${decimal(result.spectrogram.top_hz / 1000).replace(".0", "")} kHz`;
  document.querySelectorAll("#pictures .top").forEach((mark) => { mark.textContent = top; });
  drawAxis(result.seconds);
  applyStrength();
  showPosition();
  loadSpectrogram(recording);
}

async function loadSpectrogram(recording) {
  spectrogram = null;
  try {
    const answer = await request(`/api/jobs/${recording.id}/spectrogram`);
    const buffer = await answer.arrayBuffer();
    if (recording !== selected || recording.stage !== "done") return;
    spectrogram = new Spectrogram(buffer, recording.result.spectrogram);
    spectrogram.drawNoisy(find("picture-noisy"));
    drawResult();
    find("pictures").dataset.ready = recording.id;
  } catch (error) {
    showMessage(error.message, "error");
  }
}

let drawing = false;
function drawResult() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (!spectrogram || !selected) return;
    const canvas = find("picture-clean");
    if (mode() === "removed") spectrogram.drawRemoved(canvas, selected.strength);
    else spectrogram.drawMixed(canvas, selected.strength);
  });
}

function showFigures(recording) {
  find("figures").replaceChildren(...figures(recording).map(([term, text]) => {
    const row = document.createElement("div");
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = term;
    value.textContent = text;
    row.append(name, value);
    return row;
  }));
}

function drawAxis(seconds) {
  const axis = find("axis");
  const width = axis.clientWidth || 600;
  const shortest = (64 / width) * seconds;
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
  const step = steps.find((value) => value >= shortest) || 14_400;
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  const marks = [];
  for (let tick = 0; tick < seconds - step / 4; tick += step) {
    const mark = document.createElement("span");
    mark.textContent = clock(tick, digits);
    mark.style.left = `${(100 * tick) / seconds}%`;
    marks.push(mark);
  }
  axis.replaceChildren(...marks);
}

const mode = () => document.querySelector("input[name=mode]:checked").value;

function setMode(value) {
  document.querySelector(`input[name=mode][value=${value}]`).checked = true;
  applyStrength();
}

function applyStrength() {
  if (!selected?.result) return;
  const percent = Math.round(100 * selected.strength);
  find("strength").value = percent;
  find("strength").style.setProperty("--share", `${percent}%`);
  find("strength-value").value = `${percent} %`;
  const removed = mode() === "removed";
  find("clean-caption").textContent = removed ? "Removed noise" : percent === 100 ? "Cleaned" : `Cleaned, ${percent} %`;
  find("pictures").dataset.mode = mode();
  player.hear(mode(), selected.strength, loudnessGain(selected));
  showFigures(selected);
  drawResult();
}

function setStrength(percent) {
  if (!selected?.result) return;
  selected.strength = Math.min(Math.max(percent, 0), 100) / 100;
  if (mode() === "original") setMode("cleaned");
  applyStrength();
  remember();
}

function showPosition() {
  const seconds = player.duration || 1;
  const at = player.time;
  find("cursor").style.left = `${(100 * at) / seconds}%`;
  find("seek").value = at;
  find("seek").style.setProperty("--share", `${(100 * at) / seconds}%`);
  find("seek").setAttribute("aria-valuetext", `${clock(at)} of ${clock(player.duration)}`);
  find("clock").value = `${clock(at)} / ${clock(player.duration)}`;
  const { playing } = player;
  const button = find("play");
  if (button.getAttribute("aria-pressed") !== String(playing)) {
    button.setAttribute("aria-pressed", playing);
    button.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  if (playing && !showPosition.next) {
    showPosition.next = requestAnimationFrame(() => {
      showPosition.next = 0;
      showPosition();
    });
  }
}

async function toggle() {
  if (selected?.stage !== "done") return;
  await player.toggle().catch((error) => showMessage(`The sound cannot be played: ${error.message}`, "error"));
}

// Downloads

function follow(url) {
  const link = document.createElement("a");
  link.href = url;
  link.download = "";
  link.click();
}

async function busy(button, text, work) {
  const before = button.textContent;
  button.disabled = true;
  button.textContent = text;
  try {
    await work();
  } catch (error) {
    showMessage(error.message, "error");
  } finally {
    button.textContent = before;
    button.disabled = false;
  }
}

function rendering({ strength, format, loudness }) {
  if (loudness === "keep") return { strength, format, keep_loudness: true };
  return loudness ? { strength, format, loudness: Number(loudness) } : { strength, format };
}

async function download() {
  const recording = selected;
  if (recording?.stage !== "done") return;
  await busy(find("download"), "Preparing…", async () => {
    const file = await json(`/api/jobs/${recording.id}/file`, rendering(recording));
    if (file.warnings.length) showMessage(sentence(file.warnings.join("; ")));
    follow(file.url);
  });
}

async function downloadAll() {
  await busy(find("download-all"), "Preparing…", async () => {
    const jobs = recordings
      .filter(({ stage }) => stage === "done")
      .map((recording) => ({ id: recording.id, ...rendering(recording) }));
    follow((await json("/api/zip", { jobs })).url);
  });
}

async function suggest() {
  const recording = selected;
  if (recording?.stage !== "done") return;
  await busy(find("auto"), "Listening…", async () => {
    const { strength, note } = await json(`/api/jobs/${recording.id}/strength`, {});
    recording.strength = strength;
    if (recording === selected) setStrength(100 * strength);
    showMessage(note ? sentence(note) : `${Math.round(100 * strength)} % suits this recording best.`);
  });
}

async function cleanAgain(model) {
  const recording = selected;
  if (recording?.stage !== "done" || model === recording.model) return;
  try {
    const job = await json(`/api/jobs/${recording.id}`, { model });
    if (recording === selected) player.unload();
    take(recording, job);
    poll();
  } catch (error) {
    find("model").value = recording.model;
    showMessage(error.message, "error");
  }
  showList();
}

// The microphone

const recorder = new Recorder(showRecording, stopRecording);

function showRecording(peak, seconds) {
  const level = Math.max(20 * Math.log10(peak + 1e-6), -60);
  const meter = document.querySelector(".meter");
  meter.setAttribute("aria-valuenow", Math.round(level));
  const bar = meter.firstElementChild;
  const width = Math.max((100 * (level + 60)) / 60, parseFloat(bar.style.width || 0) - 4);
  bar.style.width = `${width}%`;
  meter.classList.toggle("loud", level > -1);
  find("recorder-clock").value = clock(seconds);
}

async function startRecording() {
  player.pause();
  find("record").disabled = true;
  try {
    await recorder.start();
  } catch (error) {
    recorder.stop();
    showMessage(error.message, "error");
    return;
  } finally {
    find("record").disabled = false;
  }
  showRecording(0, 0);
  find("recorder").showModal();
}

function stopRecording() {
  const file = recorder.stop();
  if (find("recorder").open) find("recorder").close();
  if (!file) return;
  const before = recordings.length;
  addFiles([{ file, name: file.name }]);
  if (recordings.length > before) select(recordings.at(-1));
}

// Controls

function listen() {
  find("choose-files").addEventListener("click", () => find("files").click());
  find("choose-folder").addEventListener("click", () => find("folder").click());
  for (const id of ["files", "folder"]) {
    find(id).addEventListener("change", ({ target }) => {
      addFiles(filesOfInput(target.files));
      target.value = "";
    });
  }
  listenToDrops();
  find("record").addEventListener("click", startRecording);
  find("recorder-stop").addEventListener("click", stopRecording);
  find("recorder-cancel").addEventListener("click", () => find("recorder").close());
  find("recorder").addEventListener("close", () => recorder.stop());
  find("play").addEventListener("click", toggle);
  find("seek").addEventListener("input", ({ target }) => player.seek(Number(target.value)));
  find("mode").addEventListener("change", applyStrength);
  find("strength").addEventListener("input", ({ target }) => setStrength(Number(target.value)));
  find("format").addEventListener("change", ({ target }) => {
    selected.format = target.value;
    remember();
  });
  find("loudness").addEventListener("change", ({ target }) => {
    selected.loudness = target.value;
    if (mode() === "original") setMode("cleaned");
    applyStrength();
    remember();
  });
  listenToModel();
  find("auto").addEventListener("click", suggest);
  find("download").addEventListener("click", download);
  find("download-all").addEventListener("click", downloadAll);
  find("for-all").addEventListener("click", () => {
    const { strength, format, loudness } = selected;
    recordings.forEach((recording) => Object.assign(recording, { strength, format, loudness }));
    remember();
    showMessage("Strength, loudness and format now apply to all recordings.");
  });
  find("remove-all").addEventListener("click", () => [...recordings].forEach(removeRecording));
  find("help").addEventListener("click", () => find("keys").showModal());
  listenToPictures();
  document.addEventListener("keydown", onKey);
  new ResizeObserver(() => selected?.result && drawAxis(selected.result.seconds)).observe(find("axis"));
}

// An arrow key changes the choice at once; Enter, or leaving the field, confirms it.
function listenToModel() {
  const model = find("model");
  let byKey = false;
  model.addEventListener("pointerdown", () => { byKey = false; });
  model.addEventListener("keydown", ({ key }) => {
    byKey = true;
    if (key === "Enter") cleanAgain(model.value);
  });
  model.addEventListener("change", () => byKey || cleanAgain(model.value));
  model.addEventListener("blur", () => cleanAgain(model.value));
}

function listenToDrops() {
  let depth = 0;
  const mark = () => document.body.classList.toggle("dropping", depth > 0);
  const hasFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    mark();
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(depth - 1, 0);
    mark();
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    mark();
    try {
      addFiles(await filesOfDrop(event.dataTransfer));
    } catch (error) {
      showMessage(`The dropped files cannot be read: ${error.message}`, "error");
    }
  });
}

function listenToPictures() {
  const pictures = find("pictures");
  const seekTo = (event) => {
    const box = pictures.getBoundingClientRect();
    player.seek(((event.clientX - box.left) / box.width) * player.duration);
  };
  pictures.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pictures.setPointerCapture(event.pointerId);
    seekTo(event);
  });
  pictures.addEventListener("pointermove", (event) => {
    if (pictures.hasPointerCapture(event.pointerId)) seekTo(event);
  });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const isField = target.matches("select, input:not([type=range], [type=radio])");
  const isSlider = target.matches("input[type=range], input[type=radio]");
  if (isField || (key.startsWith("Arrow") && isSlider)) return;
  if (key === " " && target.matches("button:not(#play, .pick)")) return; // it is pressed
  const actions = {
    " ": toggle,
    a: () => setMode(mode() === "original" ? "cleaned" : "original"),
    n: () => setMode(mode() === "removed" ? "cleaned" : "removed"),
    d: download,
    "+": () => setStrength(100 * selected.strength + 5),
    "=": () => setStrength(100 * selected.strength + 5),
    "-": () => setStrength(100 * selected.strength - 5),
    ArrowLeft: () => player.seek(player.time - STEP_SECONDS),
    ArrowRight: () => player.seek(player.time + STEP_SECONDS),
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
    "?": () => find("keys").showModal(),
  };
  const action = actions[key.length === 1 ? key.toLowerCase() : key];
  if (!action || (!selected && key !== "?")) return;
  event.preventDefault();
  action();
}

function step(by) {
  const next = recordings[recordings.indexOf(selected) + by];
  if (!next) return;
  select(next);
  if (find("list").contains(document.activeElement)) next.pick.focus();
  next.item.scrollIntoView({ block: "nearest" });
}

// The start

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function modelOptions() {
  const groups = [["bundled", "Bundled"], ["local", "Your own"]];
  return groups
    .map(([kind, label]) => {
      const group = document.createElement("optgroup");
      group.label = label;
      group.append(...models.filter((model) => model.kind === kind).map(({ name, description }) => {
        const element = option(name, name);
        element.title = description;
        return element;
      }));
      return group;
    })
    .filter((group) => group.children.length);
}

// The recordings from before a reload, and those that a link to the page names: /?job=ID.
async function restore() {
  const kept = JSON.parse(sessionStorage.getItem("recordings") || "[]");
  for (const id of new URLSearchParams(location.search).getAll("job")) {
    if (!kept.some((recording) => recording.id === id)) kept.push({ id });
  }
  history.replaceState(null, "", "/");
  if (!kept.length) return;
  for (let start = 0; start < kept.length; start += 100) { // the server answers 200 at a time
    const query = kept.slice(start, start + 100).map(({ id }) => `id=${encodeURIComponent(id)}`);
    const { jobs } = await json(`/api/jobs?${query.join("&")}`);
    for (const job of jobs) {
      const recording = addRecording({ ...kept.find(({ id }) => id === job.id), name: job.name });
      take(recording, job);
    }
  }
  remember();
  poll();
}

async function start() {
  listen();
  try {
    const [facts, list] = await Promise.all([json("/api/server"), json("/api/models")]);
    server = facts;
    models = list.models;
    for (const id of ["model", "new-model"]) {
      find(id).replaceChildren(...modelOptions());
      find(id).value = list.default;
    }
    const names = { "": "same as input", ".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".opus": "Opus", ".ogg": "Ogg Vorbis", ".aiff": "AIFF" };
    find("format").replaceChildren(...Object.entries(names)
      .filter(([suffix]) => !suffix || server.writes.includes(suffix))
      .map(([suffix, name]) => option(suffix, name)));
    find("loudness-field").hidden = !server.loudness;
    find("auto").hidden = !server.auto_strength;
    find("files").accept = server.reads.join(",");
    const where = server.on_this_machine
      ? "Nothing leaves this computer."
      : `Files go to ${location.hostname} only.`;
    find("limits").textContent =
      `Audio and video files up to ${size(server.max_bytes)}. ${where} Everything is removed when the server ends.`;
    await restore();
  } catch (error) {
    showMessage(error.message, "error");
  }
  showList();
  setInterval(touch, Math.min(TOUCH_MS, 20_000 * (server.keep_minutes ?? 60))); // a third of it
  document.body.classList.add("ready");
}

start();
