// Runs the model: a hop of sound in, a clean hop out.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more threads need headers of the server, and gain nothing here
ort.env.logLevel = "error";

/** Read the metadata of an ONNX file, which onnxruntime-web does not hand out. */
function metadataOf(bytes) {
  const text = new TextDecoder();
  const facts = {};
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) { // the fields of ModelProto
    const tag = varint();
    if (tag % 8 === 0) {
      varint();
      continue;
    }
    const end = varint() + at;
    if (tag === 14 * 8 + 2) { // metadata_props
      const entry = [];
      while (at < end) {
        varint(); // 1: key, 2: value
        const length = varint();
        entry.push(text.decode(bytes.subarray(at, at + length)));
        at += length;
      }
      facts[entry[0]] = entry[1];
    }
    at = end;
  }
  return facts;
}

/** A Fourier transform of any length, fast if the length has small factors only. */
class Fourier {
  constructor(size) {
    this.size = size;
    this.cos = Float64Array.from({ length: size }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.sin = Float64Array.from({ length: size }, (_, i) => Math.sin((2 * Math.PI * i) / size));
  }

  /** Transform the complex numbers re + i im; the sign of the exponent is -1 or, to invert, 1. */
  run(re, im, sign) {
    const n = re.length;
    if (n === 1) return [re, im];
    let factor = 2;
    while (n % factor) factor += 1;
    const part = n / factor;
    const outRe = new Float64Array(n), outIm = new Float64Array(n);
    const step = this.size / n;
    for (let r = 0; r < factor; r++) {
      const [a, b] = this.run(
        Float64Array.from({ length: part }, (_, i) => re[i * factor + r]),
        Float64Array.from({ length: part }, (_, i) => im[i * factor + r]), sign);
      for (let k = 0; k < n; k++) {
        const angle = ((k * r) % n) * step;
        const c = this.cos[angle], s = sign * this.sin[angle], j = k % part;
        outRe[k] += a[j] * c - b[j] * s;
        outIm[k] += a[j] * s + b[j] * c;
      }
    }
    return [outRe, outIm];
  }
}

/** A stream of sound at the rate of the model, hop by hop. */
class Stream {
  constructor(session, facts) {
    this.session = session;
    this.nFft = Number(facts.n_fft);
    this.hop = Number(facts.hop_length);
    this.sampleRate = Number(facts.sample_rate);
    if (facts.window !== "sqrt_hann") throw new Error(`no window ${facts.window} here`);
    this.window = Float64Array.from(
      { length: this.nFft }, (_, i) => Math.sin((Math.PI * i) / this.nFft));
    this.fourier = new Fourier(this.nFft);
    this.sound = new Float64Array(this.nFft);
    this.sum = new Float64Array(this.nFft);
    this.delayed = []; // noisy hops, for the bypass
    this.state = new ort.Tensor("float32", new Float32Array(Number(facts.stateSize)),
                                [1, Number(facts.stateSize)]);
    this.wait = Number(facts.delay_frames);
    this.delay = (this.nFft + this.wait * this.hop) / this.sampleRate;
  }

  /** Take a hop and return a clean one, which is nFft - hop samples and the look-ahead older. */
  async process(samples) {
    const start = performance.now();
    const { nFft, hop, window } = this;
    const bins = nFft / 2 + 1;
    this.sound.copyWithin(0, hop);
    this.sound.set(samples, nFft - hop);
    const frame = this.sound.map((x, i) => x * window[i]);
    const [re, im] = this.fourier.run(frame, new Float64Array(nFft), -1);
    const spectrum = new Float32Array(2 * bins);
    for (let k = 0; k < bins; k++) {
      spectrum[2 * k] = re[k];
      spectrum[2 * k + 1] = im[k];
    }
    const inputs = {
      spectrum: new ort.Tensor("float32", spectrum, [1, bins, 1, 2]),
      state: this.state,
    };
    if (this.wait) inputs.present = new ort.Tensor("float32", [1], [1]);
    const results = await this.session.run(inputs);
    this.state = results.next_state;
    const cleaned = results.cleaned.data;
    const backRe = new Float64Array(nFft), backIm = new Float64Array(nFft);
    for (let k = 0; k < nFft; k++) {
      const j = k < bins ? k : nFft - k;
      backRe[k] = cleaned[2 * j];
      backIm[k] = (k < bins ? 1 : -1) * cleaned[2 * j + 1];
    }
    const [back] = this.fourier.run(backRe, backIm, 1);
    this.sum.copyWithin(0, hop);
    this.sum.fill(0, nFft - hop);
    const scale = (2 * hop) / nFft; // the sum of the squared windows is its inverse
    for (let i = 0; i < nFft; i++) this.sum[i] += (back[i] / nFft) * window[i] * scale;
    this.delayed.push(samples);
    const behind = nFft / hop - 1 + this.wait;
    const noisy = this.delayed.length > behind ? this.delayed.shift() : new Float32Array(hop);
    return {
      clean: Float32Array.from(this.sum.subarray(0, hop)),
      noisy,
      seconds: (performance.now() - start) / 1000,
      delay: this.delay,
    };
  }
}

let stream;

/** Clean the hops of a port in their order. */
function serve(port) {
  let last = Promise.resolve();
  port.onmessage = ({ data }) => {
    last = last
      .then(() => stream.process(data))
      .then((result) => port.postMessage(result))
      .catch((error) => self.postMessage({ error: String(error) })); // and the next hop is tried
  };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.port) {
      serve(data.port);
      return;
    }
    const bytes = new Uint8Array(await (await fetch(data.url)).arrayBuffer());
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const facts = metadataOf(bytes);
    const shape = session.inputMetadata.find((input) => input.name === "state").shape;
    stream = new Stream(session, { ...facts, stateSize: shape[1] });
    self.postMessage({
      name: facts.name, sampleRate: stream.sampleRate, hop: stream.hop, delay: stream.delay,
    });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
