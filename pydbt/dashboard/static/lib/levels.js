/* A level in words and shape; its colour is in the style sheet, by the class. Never one of the three alone. */

import { el, svg } from "./dom.js";

const SHAPES = {
  good: () => [
    svg("circle", { cx: 8, cy: 8, r: 7, class: "fill" }),
    svg("path", { d: "M4.6 8.3l2.3 2.3 4.5-4.9", class: "ink" }),
  ],
  behind: () => [
    svg("circle", { cx: 8, cy: 8, r: 6.2, class: "line" }),
    svg("path", { d: "M8 1.800a6.200 6.200 0 0 0 0 12.400z", class: "fill" }),
  ],
  bad: () => [
    svg("path", { d: "M8 1l7.400 13.500H.6z", class: "fill" }),
    svg("path", { d: "M8 6v4.200M8 12v.6", class: "ink" }),
  ],
  stopped: () => [svg("rect", { x: 2, y: 2, width: 12, height: 12, rx: 2, class: "fill" })],
  unknown: () => [
    svg("path", { d: "M8 .9L15.100 8 8 15.100.9 8z", class: "line dashed" }),
    svg("path", { d: "M6.300 6.600c0-2.300 3.500-2.200 3.500 0 0 1.300-1.700 1.300-1.700 2.700M8.100 11.100v.6", class: "line thin" }),
  ],
  stale: () => [
    svg("circle", { cx: 8, cy: 8, r: 6.600, class: "line dashed" }),
    svg("path", { d: "M8 4.300V8l2.600 1.700", class: "line" }),
  ],
};

export const LEVEL_WORDS = {
  good: "Good",
  behind: "Behind",
  bad: "Bad",
  stopped: "Stopped",
  unknown: "Unknown",
  stale: "Stale",
};

/** The worst first: the order of the overview. */
export const WORST_FIRST = ["bad", "unknown", "stopped", "behind", "good"];

export const levelOf = (level) => (Object.hasOwn(LEVEL_WORDS, level ?? "") ? level : "unknown");

export function shapeOf(level) {
  const known = levelOf(level);
  return svg("svg", { class: `shape ${known}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, ...SHAPES[known]());
}

/** Shape and word. */
export function badge(level, words) {
  const known = levelOf(level);
  return el("span", { class: `badge ${known}` }, shapeOf(known), el("span", {}, words ?? LEVEL_WORDS[known]));
}

/** Only where it changed: the same badge stays in place. */
export function setBadge(holder, level, words) {
  const key = `${levelOf(level)}|${words ?? ""}`;
  if (holder.dataset.badge === key) return;
  holder.dataset.badge = key;
  holder.replaceChildren(badge(level, words));
}
