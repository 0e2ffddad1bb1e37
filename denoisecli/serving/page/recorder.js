// Records from the microphone as 16-bit WAV: every browser can, and the server needs no codec.

const MAX_SECONDS = 3600;

function header(bytes, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, value) => [...value].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view.buffer;
}

export class Recorder {
  // `onLevel(peak, seconds)` is called for every block; `onFull` at the longest length.
  constructor(onLevel, onFull) {
    this.onLevel = onLevel;
    this.onFull = onFull;
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("This browser records only on a secure page: open it on the machine of the server, or through https.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
    } catch (error) {
      const reasons = {
        NotAllowedError: "The browser does not let this page use the microphone; allow it in its settings.",
        NotFoundError: "There is no microphone.",
        NotReadableError: "The microphone is used by another program.",
      };
      throw new Error(reasons[error.name] || `The microphone cannot be used: ${error.message}`);
    }
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/static/recorder-worklet.js");
    this.blocks = [];
    this.timesteps = 0;
    const tap = new AudioWorkletNode(this.context, "tap", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => this.#add(data);
    this.context.createMediaStreamSource(this.stream).connect(tap).connect(this.context.destination);
  }

  #add(samples) {
    if (!this.blocks) return;
    const block = new Int16Array(samples.length);
    let peak = 0;
    samples.forEach((sample, index) => {
      block[index] = Math.round(Math.min(Math.max(sample, -1), 1) * 32767);
      peak = Math.max(peak, Math.abs(sample));
    });
    this.blocks.push(block);
    this.timesteps += block.length;
    const seconds = this.timesteps / this.context.sampleRate;
    this.onLevel(peak, seconds);
    if (seconds >= MAX_SECONDS) this.onFull();
  }

  // Ends the recording and returns it as a file, or null if nothing was recorded.
  stop() {
    const { blocks, timesteps } = this;
    this.blocks = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    const rate = this.context?.sampleRate;
    this.context?.close();
    this.stream = this.context = null;
    if (!blocks?.length) return null;
    const now = new Date();
    const two = (number) => String(number).padStart(2, "0");
    const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
    const name = `recording ${day} ${two(now.getHours())}.${two(now.getMinutes())}.${two(now.getSeconds())}.wav`;
    return new File([header(2 * timesteps, rate), ...blocks], name, { type: "audio/wav" });
  }
}
