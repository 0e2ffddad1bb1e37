// Tables: every heading has a button that sorts; missing values come last in both directions.
function makeSortable(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim().replace("−", "-");
    return headings[column].classList.contains("number") ? parseFloat(text) : text.toLowerCase();
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.ariaSort === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.ariaSort = down ? "descending" : "ascending";
      const keyed = [...body.rows].map((row) => [key(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        const order = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function makeFilter(table) {
  const select = document.getElementById("estimator");
  const search = document.getElementById("find");
  const output = document.getElementById("found");
  const apply = () => {
    const estimator = select ? select.value : "";
    const text = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const names = [row.cells[0].textContent, row.dataset.noise];
      row.hidden =
        (estimator !== "" && row.dataset.estimator !== estimator) ||
        !names.some((name) => name.toLowerCase().includes(text));
      count += !row.hidden;
    }
    output.value = `${count} of ${table.tBodies[0].rows.length}`;
  };
  search.addEventListener("input", apply);
  if (select) select.addEventListener("change", apply);
  document.querySelector(".filters").hidden = false;
  apply();
}

// Viewers: the sounds of a recording play in step and share one position, zoom and scroll bar.
const MAX_ZOOM = 32;
let audioContext = null;
let stopCurrent = () => {};

function makeViewer(recording) {
  const seconds = Number(recording.dataset.seconds);
  const start = Number(recording.dataset.start);
  const tools = recording.querySelector(".tools");
  const slider = tools.querySelector("input");
  const clock = tools.querySelector("output");
  const view = recording.querySelector(".view");
  const stage = recording.querySelector(".stage");
  const axis = recording.querySelector(".axis");
  const toggle = tools.querySelector(".toggle");
  const sounds = [...recording.querySelectorAll("audio")];
  const buttons = [...recording.querySelectorAll(".play")];
  let player = null;
  let at = 0;
  let zoom = 1;
  let heard = 0; // the sound that plays, or that played last
  let playing = false;

  const show = () => {
    slider.value = at;
    const text = `${(start + at).toFixed(1)} of ${(start + seconds).toFixed(1)} s`;
    if (clock.value !== text) clock.value = text;
    stage.style.setProperty("--at", at / seconds);
    stage.style.setProperty("--marked", at > 0 || playing ? 1 : 0);
  };
  const mark = () =>
    buttons.forEach((button, index) => {
      button.ariaPressed = String(playing && index === heard);
    });
  const follow = () => {
    if (!playing) return;
    at = Math.min(player.at, seconds);
    show();
    const x = (at / seconds) * stage.clientWidth - view.scrollLeft;
    if (zoom > 1 && (x < 0 || x > view.clientWidth)) view.scrollLeft += x - view.clientWidth / 8;
    requestAnimationFrame(follow);
  };
  const stop = () => {
    if (player) player.pause();
    playing = false;
    mark();
  };
  const load = async () => {
    audioContext ??= new AudioContext();
    const loaded = new Player(audioContext, () => {
      stop();
      seek(0);
    });
    const decoded = sounds.map((sound) => decodeDataUri(audioContext, sound.src));
    loaded.buffers = await Promise.all(decoded);
    player = loaded;
  };
  const listen = (index) => {
    heard = index;
    if (player) player.mix(sounds.map((_, other) => Number(other === index)));
    mark();
  };
  const play = async (index) => {
    if (playing && heard === index) return stop();
    if (playing) return listen(index);
    stopCurrent();
    stopCurrent = stop;
    playing = true;
    listen(index);
    try {
      if (!player) await load();
    } catch {
      stop();
      clock.value = "This browser cannot play Ogg Opus.";
      return;
    }
    if (!playing) return; // stopped while the sounds were decoded
    if (at >= seconds - 0.02) at = 0;
    listen(heard);
    player.play(at);
    follow();
  };
  const seek = (time) => {
    at = Math.min(Math.max(time, 0), seconds);
    if (player) player.seek(at);
    show();
  };
  const drawAxis = () => {
    const shortest = (70 / stage.clientWidth) * seconds;
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];
    const step = steps.find((size) => size >= shortest) || 60;
    axis.replaceChildren();
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    for (let tick = Math.ceil(start / step) * step; tick < start + seconds - step / 4; tick += step) {
      const mark = document.createElement("span");
      mark.textContent = `${tick.toFixed(digits)} s`;
      mark.style.left = `${((tick - start) / seconds) * 100}%`;
      axis.append(mark);
    }
  };
  const setZoom = (value, x = view.clientWidth / 2) => {
    const place = (view.scrollLeft + x) / stage.clientWidth;
    zoom = Math.min(Math.max(value, 1), MAX_ZOOM);
    stage.style.width = `${zoom * 100}%`;
    view.scrollLeft = place * stage.clientWidth - x;
    drawAxis();
  };
  const fit = () => {
    if (!view.clientWidth) return;
    stage.style.setProperty("--shown", `${view.clientWidth}px`);
    drawAxis();
  };

  sounds.forEach((sound, index) => {
    sound.hidden = true;
    buttons[index].addEventListener("click", () => play(index));
  });
  const compare = () => listen(heard === 0 ? 1 : 0);
  toggle.addEventListener("click", compare);
  recording.querySelectorAll(".play, .tools").forEach((part) => (part.hidden = false));
  recording.querySelectorAll(".still").forEach((part) => (part.hidden = true));
  slider.addEventListener("input", () => seek(Number(slider.value)));
  tools.querySelectorAll("[data-zoom]").forEach((button) =>
    button.addEventListener("click", () => setZoom(zoom * Number(button.dataset.zoom))),
  );
  recording.querySelectorAll(".picture").forEach((picture) =>
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * seconds);
    }),
  );
  view.addEventListener("scroll", () =>
    stage.style.setProperty("--scrolled", `${view.scrollLeft}px`),
  );
  view.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return; // pinching on a touch pad sets it
      event.preventDefault();
      setZoom(zoom * Math.exp(-event.deltaY / 100), event.clientX - view.getBoundingClientRect().left);
    },
    { passive: false },
  );
  recording.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onControl = event.target.matches("button, input, summary");
    if (event.key === " " && !onControl) play(heard);
    else if (event.key === "a") listen(0);
    else if (event.key === "b") listen(1);
    else if (event.key === "x") compare();
    else if (event.key === "+" || event.key === "=") setZoom(zoom * 2);
    else if (event.key === "-") setZoom(zoom / 2);
    else if (event.key === "0") setZoom(1);
    else if (Number(event.key) >= 1 && Number(event.key) <= sounds.length) play(event.key - 1);
    else return;
    event.preventDefault();
  });
  recording.addEventListener("toggle", () => (recording.open ? fit() : stop()));
  new ResizeObserver(fit).observe(view);
  show();
}

document.querySelectorAll(".sortable").forEach(makeSortable);
document.querySelectorAll("#files").forEach(makeFilter);
document.querySelectorAll(".recording").forEach(makeViewer);
