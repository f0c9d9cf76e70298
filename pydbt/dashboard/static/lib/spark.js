/* The last minutes of two rates as a small drawing; figures beside it have the words. */

import { setAttribute, svg } from "./dom.js";

const WIDTH = 96;
const HEIGHT = 22;
const LONGEST_S = 180;
const LEAST_S = 8;

export class Spark {
  constructor() {
    this.disk = svg("path", { class: "disk" });
    this.wire = svg("path", { class: "wire" });
    this.node = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" }, this.disk, this.wire);
  }

  draw(trace) {
    const last = trace.at(-1)?.[0] ?? 0;
    const shown = trace.filter(([moment, disk, wire]) => last - moment <= LONGEST_S && (isFigure(disk) || isFigure(wire)));
    const span = shown.length ? last - shown[0][0] : 0;
    this.node.toggleAttribute("hidden", span < LEAST_S);
    const most = Math.max(1, ...shown.map(([, disk, wire]) => Math.max(disk ?? 0, wire ?? 0)));
    setAttribute(this.disk, "d", path(shown, 1, last, span, most));
    setAttribute(this.wire, "d", path(shown, 2, last, span, most));
  }
}

const isFigure = (value) => typeof value === "number";

/* A gap where the rate is not known. */
function path(trace, column, last, span, most) {
  let pen = "M";
  const words = [];
  for (const one of trace) {
    if (!isFigure(one[column])) {
      pen = "M";
      continue;
    }
    const x = WIDTH - ((last - one[0]) / Math.max(span, 1)) * WIDTH;
    const y = HEIGHT - 1.5 - (one[column] / most) * (HEIGHT - 3);
    words.push(`${pen}${x.toFixed(1)} ${y.toFixed(1)}`);
    pen = "L";
  }
  return words.join("");
}
