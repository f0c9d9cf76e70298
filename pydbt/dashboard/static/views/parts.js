/* Pieces that the overview and a volume's summary share: forecast, progress, secondaries. */

import { cut, el, keyed, setAttribute, setText } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { setBadge } from "../lib/levels.js";

/** The server's sentence on when the replica is in sync again. */
export function forecastWords(view) {
  const { words, seconds } = view.forecast ?? {};
  return words && seconds !== 0 ? cut(words, 300) : ""; /* of what is in sync the first line tells it already */
}

export function progressBar() {
  return el("div", { class: "progress", hidden: true }, el("progress", { max: "1", "aria-label": "Synchronized" }), el("span"));
}

/** `back`: why less is done than a moment ago. */
export function setProgress(node, { progress, progress_back: back }) {
  const total = progress?.total_bytes;
  node.hidden = !(total > 0);
  if (node.hidden) return;
  const part = Math.min((progress.done_bytes ?? 0) / total, 1);
  setAttribute(node.firstElementChild, "value", part.toFixed(4));
  const still = typeof progress.still_seconds === "number" ? `, standing still for ${format.seconds(progress.still_seconds)}` : "";
  const why = back ? `; ${cut(back, 120)}` : "";
  const text = `${Math.floor(part * 100)} %, ${format.bytes(progress.done_bytes)} of ${format.bytes(total)}${still}${why}`;
  setText(node.lastElementChild, text);
}

/* A secondary's own level is the server's to decide. Without one it is not called good. */
const levelOfSecondary = (one) => one.level ?? "unknown";

export function nameOfSecondary(one) {
  return cut(one.name ?? one.secondary ?? "secondary", 60);
}

/** A line for each of several secondaries; one alone is the volume's own line. */
export function secondariesOf(list, view, isStale) {
  const several = (view.secondaries ?? []).length > 1 ? view.secondaries : [];
  list.hidden = !several.length;
  keyed(
    list,
    several,
    (one) => nameOfSecondary(one),
    () => el("li", {}, el("span"), el("bdi"), el("span", { class: "words" })),
    (item, one) => {
      const [mark, name, words] = item.children;
      setBadge(mark, isStale ? "stale" : levelOfSecondary(one));
      setText(name, nameOfSecondary(one));
      setText(words, wordsOfSecondary(one));
    },
  );
}

export function wordsOfSecondary(one) {
  if (one.words) return cut(one.words, 160);
  const state = [one.replica_state, one.mode].filter(Boolean).join(", ") || "unknown";
  return cut(one.connection_problem ? `${state}; not connected: ${one.connection_problem}` : state, 160);
}
