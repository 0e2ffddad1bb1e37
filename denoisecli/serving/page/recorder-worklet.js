// Passes what the microphone hears to the page, some 20 times per second.

const BLOCK = 2048;

class Tap extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;

  process([input]) {
    if (!input.length) return true;
    this.#block.set(input[0], this.#filled); // 128 samples, which divide a block
    this.#filled += input[0].length;
    if (this.#filled === BLOCK) {
      this.port.postMessage(this.#block);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("tap", Tap);
