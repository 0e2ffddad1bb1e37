// What a recording gains at a strength, from what the server has measured before and after.

import { decimal } from "./text.js";

// The loudness at a strength, between those that the server has computed; null if it has not.
function loudnessAt(result, strength) {
  if (!result.loudness) return null;
  const place = strength * (result.loudness.length - 1);
  const below = Math.min(Math.floor(place), result.loudness.length - 2);
  const [from, to] = result.loudness.slice(below, below + 2);
  return from + (to - from) * (place - below);
}

// The gain that brings the result to the chosen loudness, as the download will have it.
export function loudnessGain({ result, strength, loudness }) {
  const after = loudnessAt(result, strength);
  if (!loudness || after === null) return 1;
  const target = loudness === "keep" ? result.loudness[0] : Number(loudness);
  return 10 ** (Math.min(target - after, 40) / 20);
}

const SILENT_DBFS = -119; // no change can be measured in pauses of digital silence

// In a word, for the list.
export function changeText(result) {
  if (result.pauses && result.pauses[0] > SILENT_DBFS) {
    const change = result.pauses[1] - result.pauses[0];
    return change > -0.5 ? "nothing to remove" : `noise ${decimal(change, 0)} dB`;
  }
  if (result.rms_in_dbfs === null) return "silent";
  const change = (result.rms_out_dbfs ?? -120) - result.rms_in_dbfs;
  return change > -0.05 ? "nothing to remove" : `${decimal(change)} dB`;
}

// Names and values before and after, for the player.
export function figures(recording) {
  const { result, strength, loudness } = recording;
  const rows = [];
  const both = (before, after, unit) => `${decimal(before)} → ${decimal(after)} ${unit}`;
  const gain = 20 * Math.log10(loudnessGain(recording));
  if (result.pauses) {
    const [before, after] = result.pauses;
    const factor = 1 - strength + strength * 10 ** ((after - before) / 20);
    rows.push(["Noise in the pauses", both(before, before + 20 * Math.log10(factor) + gain, "dBFS")]);
  }
  if (result.loudness) {
    rows.push(["Loudness", both(result.loudness[0], loudnessAt(result, strength) + gain, "LUFS")]);
  } else if (result.rms_in_dbfs !== null && result.rms_out_dbfs !== null && !loudness) {
    rows.push(["Level at full strength", both(result.rms_in_dbfs, result.rms_out_dbfs, "dBFS")]);
  }
  return rows;
}
