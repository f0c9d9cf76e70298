/* The last minutes of two rates as a small drawing; figures beside it have the words. */

import { setAttribute, svg } from "./dom.js";

const WIDTH = 96;
const HEIGHT = 22;
const SPAN_S = 180;
const LEAST_S = 8;

export class Spark {
  constructor() {
    this.disk = svg("path", { class: "disk" });
    this.wire = svg("path", { class: "wire" });
    this.node = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" }, this.disk, this.wire);
  }

  draw(trace) {
    const last = trace.at(-1)?.[0] ?? 0;
    const shown = trace.filter(([moment]) => last - moment <= SPAN_S);
    this.node.toggleAttribute("hidden", !shown.length || last - shown[0][0] < LEAST_S);
    const most = Math.max(1, ...shown.map(([, disk, wire]) => Math.max(disk ?? 0, wire ?? 0)));
    setAttribute(this.disk, "d", path(shown, 1, last, most));
    setAttribute(this.wire, "d", path(shown, 2, last, most));
  }
}

/* A gap where the rate is not known. */
function path(trace, column, last, most) {
  let pen = "M";
  const words = [];
  for (const one of trace) {
    if (typeof one[column] !== "number") {
      pen = "M";
      continue;
    }
    const x = WIDTH - ((last - one[0]) / SPAN_S) * WIDTH;
    const y = HEIGHT - 1.5 - (one[column] / most) * (HEIGHT - 3);
    words.push(`${pen}${x.toFixed(1)} ${y.toFixed(1)}`);
    pen = "L";
  }
  return words.join("");
}
