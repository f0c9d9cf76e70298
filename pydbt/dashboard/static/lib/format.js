/* Figures for people. What is not known is "unknown", and never 0. */

export const UNKNOWN = "unknown";
const KIB = 1024;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const isFigure = (value) => typeof value === "number" && Number.isFinite(value);

export function bytes(value) {
  if (!isFigure(value)) return UNKNOWN;
  let unit = 0;
  while (value >= KIB && unit < UNITS.length - 1) {
    value /= KIB;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)}\u00a0${UNITS[unit]}`;
}

/** An exact place on a volume: in the largest unit that divides it, else in bytes. */
export function place(value) {
  if (!isFigure(value)) return UNKNOWN;
  let unit = 0;
  while (value && value % KIB === 0 && unit < UNITS.length - 1) {
    value /= KIB;
    unit += 1;
  }
  return `${count(value)}\u00a0${UNITS[unit]}`;
}

export function rate(value) {
  return isFigure(value) ? `${bytes(value)}/s` : UNKNOWN;
}

export function count(value) {
  return isFigure(value) ? Math.round(value).toLocaleString("en").replaceAll(",", "\u202f") : UNKNOWN;
}

export function percent(part) {
  if (!isFigure(part)) return UNKNOWN;
  const value = part * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value < 10 ? value.toFixed(1) : Math.floor(value)} %`;
}

/** A duration in its two largest units. */
export function seconds(value) {
  if (!isFigure(value)) return UNKNOWN;
  if (value < 0.0005) return "0 s";
  if (value < 1) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A duration of an I/O. */
export function nanoseconds(value) {
  if (!isFigure(value)) return UNKNOWN;
  if (value < 1e3) return `${value.toFixed(0)} ns`;
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e4 ? 1 : 0)} µs`;
  if (value < 1e9) return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} ms`;
  return `${(value / 1e9).toFixed(1)} s`;
}

/** Unix seconds of an RFC 3339 text or of a number; null for anything else. */
export function moment(value) {
  if (isFigure(value)) return value;
  if (typeof value !== "string") return null;
  const parsed = Date.parse(value);
  return Number.isNaN(parsed) ? null : parsed / 1000;
}

/** How long ago that moment was. */
export function since(value, now) {
  const then = moment(value);
  if (then === null || !isFigure(now)) return UNKNOWN;
  return now - then < 1 ? "< 1 s" : seconds(now - then);
}

export function age(value, now) {
  const told = since(value, now);
  return told === UNKNOWN ? UNKNOWN : `${told} ago`;
}

const pad = (value) => String(value).padStart(2, "0");

/** Local date and time of Unix seconds, to the second. */
export function clock(value, withDate = true) {
  const then = moment(value);
  if (then === null) return UNKNOWN;
  const date = new Date(then * 1000);
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return withDate ? `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}` : time;
}

/** Why an answer to `writers` or `io` has no figures; empty when it has some. */
export function waitsFor(answer) {
  if (answer.problem) return answer.problem;
  return answer.starting ? "The observing programs are being attached: figures come within seconds." : "";
}
