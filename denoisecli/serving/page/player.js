// Plays a recording: its noisy and clean channels come in one file, so that they stay in step. It
// streams, as recordings may last hours; the player of the report decodes its short excerpts.

const FADE_SECONDS = 0.012; // of gains, so that a switch does not click

export class Player {
  // `onChange` is called when playing starts, stops or moves; `onError` with a sentence.
  constructor(onChange, onError) {
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.mode = "cleaned";
    this.strength = 1;
    this.gain = 1; // for the loudness
    this.channels = 1;
    this.duration = 0;
    this.onChange = onChange;
    for (const event of ["play", "pause", "seeked", "ended", "timeupdate"]) {
      this.audio.addEventListener(event, () => onChange());
    }
    this.audio.addEventListener("ended", () => {
      this.seek(0);
    });
    this.audio.addEventListener("error", () => {
      if (this.audio.getAttribute("src")) onError("This browser cannot play the recording.");
    });
  }

  get playing() {
    return !this.audio.paused && !this.audio.ended;
  }

  get time() {
    return Math.min(this.audio.currentTime, this.duration);
  }

  load(url, channels, duration) {
    this.audio.pause();
    this.duration = duration;
    if (channels !== this.channels) this.#disconnect();
    this.channels = channels;
    this.audio.src = url;
    if (this.context) this.#connect();
  }

  unload() {
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.audio.load();
  }

  async toggle() {
    if (this.playing) {
      this.audio.pause();
      return;
    }
    if (!this.context) { // a browser allows it only after a key or a click
      this.context = new AudioContext();
      this.source = this.context.createMediaElementSource(this.audio);
      this.#connect();
    }
    await this.context.resume();
    await this.audio.play().catch((error) => {
      if (error.name !== "AbortError") throw error;
    });
  }

  pause() {
    this.audio.pause();
  }

  seek(time) {
    this.audio.currentTime = Math.min(Math.max(time, 0), Math.max(this.duration - 0.01, 0));
    this.onChange();
  }

  hear(mode, strength, gain) {
    this.mode = mode;
    this.strength = strength;
    this.gain = gain;
    this.#mix();
  }

  // Shares of the noisy and of the clean sound in what is heard.
  get shares() {
    if (this.mode === "original") return [1, 0];
    const clean = this.strength;
    return this.mode === "cleaned" ? [(1 - clean) * this.gain, clean * this.gain] : [clean, -clean];
  }

  #disconnect() {
    if (!this.nodes) return;
    this.source.disconnect();
    for (const node of [this.nodes.splitter, this.nodes.merger, ...this.nodes.gains.flat()]) node.disconnect();
    this.nodes = null;
  }

  #connect() {
    if (this.nodes) return;
    const { context, channels } = this;
    const splitter = context.createChannelSplitter(2 * channels);
    const merger = context.createChannelMerger(2);
    const gains = [];
    this.source.connect(splitter);
    for (let channel = 0; channel < channels; channel += 1) {
      const pair = [context.createGain(), context.createGain()];
      pair.forEach((gain, side) => {
        splitter.connect(gain, side * channels + channel);
        if (channels === 2) gain.connect(merger, 0, channel);
        else [0, 1].forEach((input) => gain.connect(merger, 0, input));
      });
      gains.push(pair);
    }
    merger.connect(context.destination);
    this.nodes = { splitter, merger, gains };
    this.#mix(0);
  }

  #mix(fade = FADE_SECONDS) {
    if (!this.nodes) return;
    for (const pair of this.nodes.gains) {
      pair.forEach((node, side) => {
        const value = this.shares[side];
        if (fade) node.gain.setTargetAtTime(value, this.context.currentTime, fade);
        else node.gain.value = value;
      });
    }
  }
}
