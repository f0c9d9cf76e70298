/* A heat map over time: a column per interval, a row per range, darker where more fell. Counts are scaled by their logarithm. */

import { el, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const LEVELS = 6;
const GUTTER = 76;
const FOOT = 22;

export class HeatPlot {
  /** `label(row)` names a row, `amount(count)` words what fell into it. `flip`: row 0 is at the bottom. */
  constructor({ title, label, amount, height, flip }) {
    Object.assign(this, { title, label, amount, height, flip });
    this.canvas = el("canvas", { role: "img", "aria-label": title });
    this.said = el("p", { class: "cell-words muted" });
    this.scale = el("ul", { class: "heat-scale", "aria-hidden": "true" }, Array.from({ length: LEVELS }, (_, level) => el("li", { class: `heat-${level}` })));
    this.most = el("b");
    this.rows = el("tbody");
    this.table = el(
      "details",
      { class: "as-table", ontoggle: () => this.#sums() },
      el("summary", {}, `${title} as a table`),
      el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ["From", "In all of this time", "In the last interval"].map((words) => el("th", { scope: "col" }, words)))), this.rows),
    );
    this.node = el(
      "figure",
      { class: "plotted" },
      el("figcaption", {}, el("h3", {}, title), el("div", { class: "heat-legend" }, "none", this.scale, "most: ", this.most)),
      el("div", { class: "heat" }, this.canvas),
      this.said,
      this.table,
    );
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => setText(this.said, ""));
    this.schemes = matchMedia("(prefers-color-scheme: dark)");
    this.repaint = () => this.shown && this.draw(...this.shown);
    this.schemes.addEventListener("change", this.repaint);
    this.resized = new ResizeObserver(this.repaint);
    this.resized.observe(this.canvas.parentElement);
  }

  close() {
    this.schemes.removeEventListener("change", this.repaint);
    this.resized.disconnect();
  }

  /** `columns`: counts, row by row, of the intervals that ended at `moments`; rows `from` to `until` are shown. */
  draw(columns, moments, from, until, width = 60) {
    this.shown = [columns, moments, from, until, width];
    const room = this.canvas.parentElement.clientWidth;
    if (!room) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(room * scale);
    this.canvas.height = Math.round((this.height + FOOT) * scale);
    this.canvas.style.width = `${room}px`;
    this.canvas.style.height = `${this.height + FOOT}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colours = Array.from({ length: LEVELS }, (_, level) => style.getPropertyValue(`--heat-${level}`).trim());
    const rows = until - from;
    this.step = { x: (room - GUTTER) / width, y: this.height / rows };
    const most = Math.max(1, ...columns.map((column) => Math.max(0, ...column.slice(from, until))));
    setText(this.most, this.amount(columns.length ? most : 0));
    pen.fillStyle = colours[0];
    pen.fillRect(GUTTER, 0, room - GUTTER, this.height);
    columns.forEach((column, index) => {
      const x = GUTTER + (width - columns.length + index) * this.step.x;
      for (let row = from; row < until; row += 1) {
        const count = column[row];
        if (!count) continue;
        const level = Math.min(LEVELS - 1, 1 + Math.floor((Math.log1p(count) / Math.log1p(most)) * (LEVELS - 1.001)));
        pen.fillStyle = colours[level];
        pen.fillRect(x, this.#top(row - from, rows), Math.ceil(this.step.x) - 0.5, Math.ceil(this.step.y) - 0.5);
      }
    });
    this.#axes(pen, style, rows, from, moments, room, width);
    this.#sums();
  }

  #top(row, rows) {
    return (this.flip ? rows - 1 - row : row) * this.step.y;
  }

  #axes(pen, style, rows, from, moments, room, width) {
    pen.fillStyle = style.getPropertyValue("--muted");
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const every = Math.max(1, Math.ceil(18 / this.step.y));
    for (let row = 0; row < rows; row += every) {
      const y = this.#top(row, rows) + (this.flip ? this.step.y : 0);
      if (y > 6 && y < this.height - 4) pen.fillText(this.label(from + row), GUTTER - 6, y);
    }
    pen.textBaseline = "top";
    pen.textAlign = "left";
    if (moments.length) {
      pen.fillText(format.clock(moments[0], false), GUTTER + (width - moments.length) * this.step.x, this.height + 6);
      pen.textAlign = "right";
      if (moments.length > 20) pen.fillText(format.clock(moments.at(-1), false), room, this.height + 6);
    }
  }

  #point(event) {
    if (!this.shown) return;
    const [columns, moments, from, until, width] = this.shown;
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - GUTTER) / this.step.x) - (width - columns.length);
    const line = Math.floor((event.clientY - box.top) / this.step.y);
    const row = from + (this.flip ? until - from - 1 - line : line);
    if (!columns[column] || row < from || row >= until) setText(this.said, "");
    else setText(this.said, `${format.clock(moments[column], false)}, from ${this.label(row)}: ${this.amount(columns[column][row] ?? 0)}`);
  }

  /* The same for those who do not see it: each row in which anything fell. */
  #sums() {
    if (!this.table.open || !this.shown) return;
    const [columns, , from, until] = this.shown;
    const rows = [];
    for (let row = from; row < until; row += 1) {
      const sum = columns.reduce((all, column) => all + (column[row] ?? 0), 0);
      if (sum) rows.push([this.label(row), this.amount(sum), this.amount(columns.at(-1)[row] ?? 0)]);
    }
    this.rows.replaceChildren(...rows.map(([label, ...words]) => el("tr", {}, el("th", { scope: "row" }, label), words.map((one) => el("td", {}, one)))));
  }

  say(words) {
    setAttribute(this.canvas, "aria-label", `${this.title}: ${words}`);
  }
}
