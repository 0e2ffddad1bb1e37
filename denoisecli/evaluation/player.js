// Versions of one sound that play in step, of which one is heard: switching keeps the position.
// The sounds are AudioBuffers; `onEnd` is called when the playback reaches the end.
class Player {
  static FADE = 0.008; // s; without it a switch clicks

  constructor(context, onEnd) {
    this.context = context;
    this.onEnd = onEnd;
    this.buffers = [];
    this.levels = [];
    this.nodes = null;
    this.position = 0;
  }

  get playing() {
    return this.nodes !== null;
  }

  get seconds() {
    return Math.max(...this.buffers.map((buffer) => buffer.duration), 0);
  }

  // The position in s.
  get at() {
    if (!this.playing) return this.position;
    const passed = this.context.currentTime - this.started;
    return Math.min(Math.max(this.position + passed, 0), this.seconds);
  }

  // Set how loud each version is heard, such as [0, 1] or a mixture.
  mix(levels) {
    this.levels = levels;
    if (!this.playing) return;
    const now = this.context.currentTime;
    this.nodes.forEach(({ gain }, index) => {
      gain.gain.cancelScheduledValues(now);
      gain.gain.setTargetAtTime(levels[index], now, Player.FADE / 3);
    });
  }

  play(at = this.position) {
    this.pause();
    this.position = at;
    this.context.resume();
    const start = this.context.currentTime + 0.02; // all versions start at the same sample
    this.started = start;
    this.nodes = this.buffers.map((buffer, index) => {
      const source = new AudioBufferSourceNode(this.context, { buffer });
      const gain = new GainNode(this.context, { gain: this.levels[index] });
      source.connect(gain).connect(this.context.destination);
      source.start(start, at);
      return { source, gain };
    });
    const longest = this.buffers.findIndex((buffer) => buffer.duration === this.seconds);
    this.nodes[longest].source.onended = () => {
      this.pause();
      this.onEnd();
    };
  }

  pause() {
    if (!this.playing) return;
    this.position = this.at;
    for (const { source, gain } of this.nodes) {
      source.onended = null;
      source.stop();
      gain.disconnect();
    }
    this.nodes = null;
  }

  seek(at) {
    if (this.playing) this.play(at);
    else this.position = at;
  }
}

// Decode the sound of a data URI, without a request that the policy of the page would forbid.
async function decodeDataUri(context, uri) {
  const text = atob(uri.slice(uri.indexOf(",") + 1));
  return context.decodeAudioData(Uint8Array.from(text, (sign) => sign.charCodeAt(0)).buffer);
}
