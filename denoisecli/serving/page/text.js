// Numbers as text.

const MINUS = "\u2212";
export const decimal = (value, digits = 1) => value.toFixed(digits).replace("-", MINUS);
export const two = (number) => String(number).padStart(2, "0");

export function clock(seconds, digits = 1) {
  const rounded = Math.round(seconds * 10 ** digits) / 10 ** digits;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

export function size(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  let value = bytes;
  while (value >= 1000 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 10 && units[0] !== "B" ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

export const channelsText = (channels) => ({ 1: "mono", 2: "stereo" })[channels] || `${channels} channels`;
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
