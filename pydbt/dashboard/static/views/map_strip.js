/* The whole volume as one strip above the grid, with a frame around the part that the grid shows. */

import { el } from "../lib/dom.js";
import { lookOf, palette } from "../lib/map_tiles.js";

const HEIGHT = 22;

export class Strip {
  constructor(onplace) {
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.frame = el("span", { class: "frame-of-window" });
    this.node = el("div", { class: "strip" }, this.canvas, this.frame);
    this.shown = null;
    const place = (event) => {
      if (!this.shown || !(event.buttons & 1)) return;
      const box = this.node.getBoundingClientRect();
      const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.999999);
      onplace(Math.floor(part * this.shown.sizeBytes));
    };
    this.node.addEventListener("pointerdown", place);
    this.node.addEventListener("pointermove", place);
    this.schemes = matchMedia("(prefers-color-scheme: dark)");
    this.repaint = () => this.answer && this.draw(this.answer, this.shown);
    this.schemes.addEventListener("change", this.repaint);
    this.resized = new ResizeObserver(this.repaint);
    this.resized.observe(this.node);
  }

  close() {
    this.schemes.removeEventListener("change", this.repaint);
    this.resized.disconnect();
  }

  window(shown) {
    this.shown = shown;
    const left = shown.start / shown.sizeBytes;
    const width = (shown.end - shown.start) / shown.sizeBytes;
    this.frame.style.left = `${left * 100}%`;
    this.frame.style.width = `max(${width * 100}%, 4px)`;
    this.frame.hidden = shown.isWhole;
  }

  draw(answer, shown) {
    this.answer = answer;
    this.shown = shown;
    const width = this.node.clientWidth;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(HEIGHT * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${HEIGHT}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const colours = palette();
    const count = Math.ceil((answer.end - answer.start) / answer.cell_bytes);
    const step = (answer.cell_bytes / (answer.end - answer.start)) * width;
    for (let index = 0; index < count; index += 1) {
      const look = lookOf(answer.cells, index);
      const x = index * step;
      const right = Math.min(x + Math.max(step, 1) + 0.5, width);
      pen.fillStyle = look.base === "unknown" ? colours.unknownTint : look.base === "free" ? colours.free : colours.insync;
      pen.fillRect(x, 0, right - x, HEIGHT);
      if (look.main) {
        const height = Math.max(3, look.main[1] * HEIGHT);
        pen.fillStyle = colours[look.main[0]];
        pen.fillRect(x, HEIGHT - height, right - x, height);
      }
      if (look.written) {
        pen.fillStyle = colours.written;
        pen.fillRect(x, 0, right - x, 4);
      }
    }
  }
}
