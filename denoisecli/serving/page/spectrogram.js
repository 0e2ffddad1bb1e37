// Spectrograms: levels of the noisy and the clean sound, a byte each; 255 is 0 dBFS, a step 0.5 dB.

const STEPS_PER_DB = 2;
const RANGE_DB = 70; // from the brightest colour to black
const MAGMA = [
  [0, 0, 4], [10, 8, 34], [29, 17, 71], [54, 16, 107], [81, 18, 124], [106, 28, 129],
  [131, 38, 129], [156, 46, 127], [183, 55, 121], [208, 65, 111], [231, 82, 99], [245, 107, 92],
  [252, 137, 97], [254, 167, 114], [254, 196, 136], [253, 226, 163], [252, 253, 191],
];

// The colours of all levels, the brightest one at `ceiling`.
function palette(ceiling) {
  const colours = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(colours.buffer);
  for (let level = 0; level < 256; level += 1) {
    const share = 1 - (ceiling - level) / (RANGE_DB * STEPS_PER_DB);
    const place = Math.min(Math.max(share, 0), 1) * (MAGMA.length - 1);
    const below = Math.min(Math.floor(place), MAGMA.length - 2);
    for (let part = 0; part < 3; part += 1) {
      const [from, to] = [MAGMA[below][part], MAGMA[below + 1][part]];
      bytes[4 * level + part] = from + (to - from) * (place - below);
    }
    bytes[4 * level + 3] = 255;
  }
  return colours;
}

// The level that 99.5 % of all values stay below.
function ceilingOf(levels) {
  const counts = new Uint32Array(256);
  for (const level of levels) counts[level] += 1;
  let left = levels.length * 0.005;
  for (let level = 255; level > 0; level -= 1) {
    left -= counts[level];
    if (left < 0) return level;
  }
  return 255;
}

export class Spectrogram {
  constructor(buffer, { rows, columns }) {
    const size = rows * columns;
    this.rows = rows;
    this.columns = columns;
    this.noisy = new Uint8Array(buffer, 0, size);
    this.clean = new Uint8Array(buffer, size, size);
    this.colours = palette(Math.max(ceilingOf(this.noisy), RANGE_DB * STEPS_PER_DB));
  }

  drawNoisy(canvas) {
    this.#draw(canvas, (index) => this.noisy[index]);
  }

  // The result at a strength: what the network removes, it removes in part. The levels follow
  // from those before and after, since the network scales every part of the spectrum.
  drawMixed(canvas, strength) {
    const steps = this.#changes((gain) => 1 - strength + strength * gain);
    this.#draw(canvas, (index) => this.noisy[index] + steps[255 + this.clean[index] - this.noisy[index]]);
  }

  drawRemoved(canvas, strength) {
    const steps = this.#changes((gain) => strength * Math.abs(1 - gain));
    this.#draw(canvas, (index) => this.noisy[index] + steps[255 + this.clean[index] - this.noisy[index]]);
  }

  // For every difference of the clean level to the noisy one, -255..255: the steps that
  // `change(gain)` adds to the noisy level.
  #changes(change) {
    const steps = new Int16Array(511);
    for (let difference = -255; difference <= 255; difference += 1) {
      const factor = change(10 ** (difference / STEPS_PER_DB / 20));
      steps[255 + difference] = Math.max(Math.round(STEPS_PER_DB * 20 * Math.log10(factor + 1e-9)), -255);
    }
    return steps;
  }

  #draw(canvas, levelAt) {
    if (canvas.width !== this.columns) canvas.width = this.columns;
    if (canvas.height !== this.rows) canvas.height = this.rows;
    const context = canvas.getContext("2d", { alpha: false });
    const image = context.createImageData(this.columns, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let index = 0; index < pixels.length; index += 1) {
      pixels[index] = this.colours[Math.min(Math.max(levelAt(index), 0), 255)];
    }
    context.putImageData(image, 0, 0);
  }
}
