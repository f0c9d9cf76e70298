/* What the page knows: the last overview, and how old it is. Its age is measured by the page's own clock. */

import { LEVEL_WORDS, levelOf } from "./levels.js";

export class Store {
  constructor() {
    this.overview = null;
    this.arrivedAt = null;
    this.link = null;
    /* id -> [[page's seconds, bytes written per second, bytes sent per second, bytes out of sync, unacknowledged]] */
    this.traces = new Map();
  }

  take(overview) {
    this.overview = overview;
    this.arrivedAt = performance.now();
    const now = this.now;
    const known = new Set();
    for (const { view } of this.volumes()) {
      known.add(view.id);
      const trace = this.traces.get(view.id) ?? [];
      trace.push([now, view.write_rate_bytes, view.wire_rate_bytes, view.out_of_sync_bytes, view.unacknowledged_bytes]);
      if (trace.length > TRACE_POINTS) trace.shift();
      this.traces.set(view.id, trace);
    }
    for (const id of this.traces.keys()) if (!known.has(id)) this.traces.delete(id);
  }

  /** The server's clock, as far as the page can tell: Unix seconds. */
  get now() {
    if (!this.overview) return Date.now() / 1000;
    return this.overview.now + (performance.now() - this.arrivedAt) / 1000;
  }

  get isStale() {
    return !this.overview || this.link.isStale;
  }

  /** Every volume with its machine: first those that need a person, then by machine and name. */
  volumes() {
    const found = [];
    for (const machine of this.overview?.machines ?? []) {
      for (const view of machine.volumes ?? []) found.push({ view, machine, isStale: this.#isOld(view, machine) });
    }
    const text = ({ view, machine }) => `${machine.name}\0${view.name}\0${view.device}\0${view.id}`;
    return found.sort((a, b) => rank(a) - rank(b) || (text(a) < text(b) ? -1 : 1));
  }

  volume(id) {
    return this.volumes().find(({ view }) => view.id === id) ?? null;
  }

  #isOld(view, machine) {
    return this.isStale || view.stale === true || machine.reachable === false;
  }
}

const RANKS = { bad: 0, unknown: 1, stopped: 2, behind: 3, good: 4 };
const FOLLOWING = new Set(["normal", "epochs", "streaming", "ready"]);

/* One that follows is good and behind by turns while it is written to, and would not stand still. */
function rank({ view }) {
  if (view.level === "behind" && FOLLOWING.has(view.mode)) return RANKS.good;
  return RANKS[view.stale && view.level === "good" ? "unknown" : view.level] ?? RANKS.unknown;
}

/* Ten minutes at one overview per second. */
const TRACE_POINTS = 600;

/**
 * The level that is shown: never better than the truth. Nothing old has the look of something known; that a volume was bad, or its
 * controller stopped, goes on to be said.
 */
export function shownLevel({ view, machine, isStale }, store) {
  if (store.isStale || machine.reachable === false) return "stale";
  if (isStale && view.level !== "bad" && view.level !== "stopped") return "stale";
  return levelOf(view.level);
}

/** The words beside the shape. */
export function shownLevelWords(one, store) {
  const level = shownLevel(one, store);
  return one.isStale && level !== "stale" ? `${LEVEL_WORDS[level]}, stale` : LEVEL_WORDS[level];
}

/** The sentence that belongs to it. */
export function shownWords({ view }, store) {
  return store.isStale ? `${ageOfPage(store)} ago: ${view.words ?? ""}` : (view.words ?? "");
}

export function ageOfPage(store) {
  const silence = store.link.silence / 1000;
  return silence < 90 ? `${Math.round(silence)} s` : `${Math.round(silence / 60)} min`;
}
