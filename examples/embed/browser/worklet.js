// Collects the quanta of 128 samples to hops, sends them to the worker, and plays what comes back.

class Denoise extends AudioWorkletProcessor {
  constructor({ processorOptions: { hop } }) {
    super();
    this.hop = hop;
    this.hops = 0;
    this.dropouts = 0;
    this.collected = new Float32Array(hop);
    this.filled = 0;
    this.clean = []; // hops that wait to be played
    this.played = 0; // samples of the first of them
    this.primed = false;
    this.bypass = false;
    this.load = 0;
    this.port.onmessage = ({ data }) => {
      if (data.port) {
        this.worker = data.port;
        this.worker.onmessage = (event) => this.receive(event.data);
      }
      if ("bypass" in data) this.bypass = data.bypass;
    };
  }

  receive({ clean, noisy, seconds, delay }) {
    this.clean.push(this.bypass ? noisy : clean);
    this.hops += 1;
    const load = (seconds * sampleRate) / this.hop;
    this.load += (load - this.load) / Math.min(this.hops, 50);
    if (this.hops % 25 === 0) {
      this.port.postMessage({
        hops: this.hops,
        load: this.load,
        dropouts: this.dropouts,
        delay: delay + (this.clean.length * this.hop - this.played) / sampleRate,
      });
    }
  }

  process([[input]], [[output]]) {
    if (!this.worker) return true;
    for (let i = 0; i < output.length; i++) {
      this.collected[this.filled++] = input ? input[i] : 0;
      if (this.filled === this.hop) {
        this.worker.postMessage(this.collected, [this.collected.buffer]);
        this.collected = new Float32Array(this.hop);
        this.filled = 0;
      }
    }
    if (!this.primed) this.primed = this.clean.length >= 2;
    if (!this.primed) return true;
    for (let i = 0; i < output.length; i++) {
      if (!this.clean.length) { // the worker is late
        this.dropouts += 1;
        this.primed = false;
        break;
      }
      output[i] = this.clean[0][this.played++];
      if (this.played === this.hop) {
        this.clean.shift();
        this.played = 0;
      }
    }
    while (this.clean.length > 4) this.clean.shift(); // the page was suspended
    return true;
  }
}

registerProcessor("denoise", Denoise);
