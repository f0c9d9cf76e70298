/* A plot over time by uPlot, in the page's colours, with its latest values in words and all of them as a table. */

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { el, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const HEIGHT = 190;
const TABLE_ROWS = 60;
const DASHES = { a: [], b: [7, 4], c: [2, 3], d: [10, 3, 2, 3], e: [1, 5] };
const schemes = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/* Steps of a power of two, so that an axis of bytes reads 1, 2, 4 MiB. */
function byteSplits(self, axis, least, most) {
  const rough = (most - least) / 4 || 1;
  const step = 2 ** Math.ceil(Math.log2(Math.max(rough, 1)));
  const splits = [];
  for (let value = Math.ceil(least / step) * step; value <= most; value += step) splits.push(value);
  return splits;
}

export class Plot {
  /**
   * `series`: [words, one of the colours a to e]. `unit` words a value. `onzoom(from, until)` for a range that was drawn.
   * `isLive`: its last point is of now, and where that has no value the words are "unknown", not a value of before.
   */
  constructor({ title, unit, series, isLive = false, onzoom = null, onhover = null, height = HEIGHT, marks = null, sync = null, splits = byteSplits }) {
    Object.assign(this, { title, unit, series, isLive, onzoom, onhover, height, marks, sync, splits });
    this.holder = el("div", { class: "plot", role: "img" });
    this.legend = el(
      "ul",
      { class: "keys" },
      series.map(([words, key]) => el("li", {}, el("span", { class: `key key-${key}`, "aria-hidden": "true" }), `${words} `, el("b"))),
    );
    this.table = el("details", { class: "as-table", ontoggle: () => this.#table() }, el("summary", {}, `${title} as a table`));
    this.node = el("figure", { class: "plotted" }, el("figcaption", {}, el("h3", {}, title), this.legend), this.holder, this.table);
    this.data = null;
    this.remake = () => {
      this.plot?.destroy();
      this.plot = null;
      if (this.data) this.draw(this.data);
    };
    schemes.addEventListener("change", this.remake);
    this.resized = new ResizeObserver(() => {
      const width = this.holder.clientWidth;
      if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
      else if (!this.plot && width && this.data) this.draw(this.data);
    });
    this.resized.observe(this.holder);
  }

  close() {
    schemes.removeEventListener("change", this.remake);
    this.resized.disconnect();
    this.plot?.destroy();
  }

  /** Columns: the moments, then one per series; null is a gap. `range` fixes the time axis. */
  draw(data, range = null) {
    this.data = data;
    this.range = range;
    if (!this.holder.clientWidth) return;
    if (!this.plot) this.plot = new uPlot(this.#options(), data, this.holder);
    else this.plot.setData(data);
    this.#words();
    this.#table();
  }

  #words() {
    const isKnown = (value) => value !== null && value !== undefined;
    const last = (column) => (this.isLive ? column.at(-1) : column.findLast(isKnown));
    const words = [];
    for (const [index, item] of Array.from(this.legend.children).entries()) {
      const value = last(this.data[index + 1]);
      const said = !isKnown(value) ? format.UNKNOWN : this.unit(value);
      setText(item.lastElementChild, said);
      words.push(`${this.series[index][0]} ${said}`);
    }
    setAttribute(this.holder, "aria-label", `${this.title}, last values: ${words.join("; ")}`);
  }

  #table() {
    if (!this.table.open || !this.data) return;
    const stride = Math.max(1, Math.ceil(this.data[0].length / TABLE_ROWS));
    const rows = [];
    for (let index = this.data[0].length - 1; index >= 0; index -= stride) {
      const cells = this.series.map((_, one) => el("td", {}, this.unit(this.data[one + 1][index])));
      rows.push(el("tr", {}, el("th", { scope: "row" }, format.clock(this.data[0][index])), cells));
    }
    const heads = ["Moment", ...this.series.map(([words]) => words)].map((words) => el("th", { scope: "col" }, words));
    const table = el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": `${this.title}, table` }, el("table", { class: "plain" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
    this.table.querySelector(".scrolled")?.remove();
    this.table.append(table);
  }

  #options() {
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colour("muted"), font, grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false } };
    return {
      width: this.holder.clientWidth,
      height: this.height,
      legend: { show: false },
      padding: [8, 30, 0, 0], /* half of the last moment's words */
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: Boolean(this.onzoom), y: false, setScale: false },
        ...(this.sync ? { sync: { key: this.sync } } : {}),
      },
      scales: {
        x: { time: true, range: (self, least, most) => this.range ?? [least, Math.max(most, least + 30)] },
        y: { range: (self, least, most) => [0, Math.max(most * 1.08, 1)] },
      },
      axes: [
        { ...axis, values: (self, splits, axisIndex, space, step) => splits.map((value) => timeWords(value, step)), space: 90, size: 28 },
        { ...axis, values: (self, splits) => splits.map((value) => (value || this.splits !== byteSplits ? this.unit(value) : "0")), size: 84, space: 34, ...(this.splits ? { splits: this.splits } : {}) },
      ],
      series: [
        {},
        ...this.series.map(([label, key], index) => ({
          label,
          stroke: colour(`series-${key}`),
          width: 1.6,
          dash: DASHES[key],
          fill: index === 0 ? colour("series-fill") : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: {
        setSelect: [
          (self) => {
            if (!this.onzoom || self.select.width < 4) return;
            const from = self.posToVal(self.select.left, "x");
            const until = self.posToVal(self.select.left + self.select.width, "x");
            self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            this.onzoom(from, until);
          },
        ],
        setCursor: [(self) => this.onhover?.(self.cursor.idx)],
        draw: [(self) => this.marks?.(self, colour)],
      },
    };
  }
}

function timeWords(value, step) {
  if (step >= 86400) return format.clock(value).slice(5, 10);
  const time = format.clock(value, false);
  if (step >= 3600) return `${format.clock(value).slice(5, 10)} ${time.slice(0, 5)}`;
  return step >= 60 ? time.slice(0, 5) : time;
}
