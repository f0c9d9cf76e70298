/* How full something of a fixed size is. */

import { el, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

export function meter(label) {
  return el(
    "div",
    { class: "meter" },
    el("span", { class: "label" }, label),
    el("meter", { min: "0", max: "1", high: "0.8", low: "0.5", optimum: "0", "aria-label": `${label}, part used` }),
    el("b"),
  );
}

/** What is meant by it may differ from one volume to the next. */
export function setMeterLabel(node, label) {
  setText(node.children[0], label);
  setAttribute(node.children[1], "aria-label", `${label}, part used`);
}

/** `fill`: `size` and `used` in bytes; unknown where either is missing. */
export function setMeter(node, fill) {
  const known = typeof fill?.size === "number" && fill.size > 0 && typeof fill.used === "number";
  const part = known ? Math.min(fill.used / fill.size, 1) : 0;
  setAttribute(node.children[1], "value", part.toFixed(3));
  setText(node.children[2], known ? format.percent(part) : format.UNKNOWN);
  node.title = known ? `${format.bytes(fill.used)} of ${format.bytes(fill.size)}` : "";
}
