// Microphone -> AudioWorklet -> worker with the model -> AudioWorklet -> loudspeaker.
// ONNX Runtime cannot run inside an AudioWorklet, which has no fetch; so the worklet only passes
// hops on, and a worker cleans them.

const state = document.getElementById("state");

/** Start a worker with the model, and return it with the facts of the model. */
export async function openModel(url = "stream.onnx") {
  const worker = new Worker("worker.js", { type: "module" });
  const facts = await new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ url: new URL(url, location.href).href });
  }).catch((error) => {
    worker.terminate();
    throw error;
  });
  return { worker, facts };
}

export async function start() {
  const { worker, facts } = await openModel();
  const context = new AudioContext({ sampleRate: facts.sampleRate, latencyHint: "interactive" });
  let microphone;
  try {
    await context.audioWorklet.addModule("worklet.js");
    microphone = await navigator.mediaDevices.getUserMedia({
      audio: { noiseSuppression: false, echoCancellation: true, autoGainControl: false },
    });
  } catch (error) {
    worker.terminate();
    context.close();
    throw error;
  }
  worker.onmessage = ({ data }) => {
    state.textContent = data.error;
  };
  const node = new AudioWorkletNode(context, "denoise", {
    numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1],
    processorOptions: { hop: facts.hop },
  });
  // The worklet and the worker talk to each other without this page.
  const channel = new MessageChannel();
  worker.postMessage({ port: channel.port1 }, [channel.port1]);
  node.port.postMessage({ port: channel.port2 }, [channel.port2]);
  const source = context.createMediaStreamSource(microphone);
  source.connect(node).connect(context.destination);
  document.getElementById("bypass").onchange = (event) =>
    node.port.postMessage({ bypass: event.target.checked });

  const report = { ...facts, hops: 0, load: 0, worst: 0, dropouts: 0, delay: 0 };
  node.port.onmessage = ({ data }) => {
    Object.assign(report, data);
    state.textContent =
      `${report.hops} hops of ${(1000 * facts.hop) / facts.sampleRate} ms\n` +
      `load ${(100 * report.load).toFixed(1)} % of a core\n` +
      `delay ${(1000 * report.delay).toFixed(0)} ms, and that of the devices ` +
      `${(1000 * (context.baseLatency + (context.outputLatency || 0))).toFixed(0)} ms\n` +
      `${report.dropouts} dropouts`;
  };
  return { context, node, report };
}

document.getElementById("start").onclick = async ({ target }) => {
  target.disabled = true; // one is enough
  state.textContent = "loading the model";
  try {
    window.running = await start();
  } catch (error) {
    state.textContent = String(error);
    target.disabled = false;
  }
};
