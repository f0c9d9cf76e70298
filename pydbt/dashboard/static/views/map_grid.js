/* The grid of the block map: draws the cells, and takes keys, mouse and touch. */

import { el } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { drawCell, lookOf, palette } from "../lib/map_tiles.js";
import { CELLS_MAX, MapWindow } from "../lib/map_window.js";

const CELLS = { least: 12, most: 18 }; /* pixels */
const GAP = 1;
const GUTTER = 68; /* the strip begins here too: style/views.css */
const HEIGHT = { least: 240, most: 460, around: 330 };
const ZOOM_STEP = 60;

export class MapGrid {
  constructor({ onwindow, onpick, oncursor }) {
    Object.assign(this, { onwindow, onpick, oncursor });
    this.window = null;
    this.cursor = null;
    this.chosen = null;
    this.answer = null;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.node = el(
      "div",
      { class: "map", role: "application", "aria-roledescription": "block map", "aria-label": "Block map", tabindex: "0" },
      this.canvas,
    );
    this.schemes = matchMedia("(prefers-color-scheme: dark)");
    this.repaint = () => this.#paint();
    this.schemes.addEventListener("change", this.repaint);
    this.resized = new ResizeObserver(() => this.#fit());
    this.resized.observe(this.node);
    this.pointers = new Map();
    this.wheel = 0;
    const on = (name, act, options) => this.node.addEventListener(name, act, options);
    on("keydown", (event) => this.#key(event));
    on("wheel", (event) => this.#wheeled(event), { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.pointers.delete(event.pointerId));
    on("dblclick", (event) => this.zoom(2, this.#cellAt(event) ?? 0));
    on("focus", () => {
      if (this.cursor === null) this.#moveTo(0);
    });
  }

  get pitch() {
    return this.size + GAP;
  }

  close() {
    this.schemes.removeEventListener("change", this.repaint);
    this.resized.disconnect();
  }

  open(sizeBytes, blockBytes) {
    this.window = new MapWindow(sizeBytes, blockBytes, ...this.#shape(Math.ceil(sizeBytes / blockBytes)));
    this.onwindow();
  }

  draw(answer) {
    this.answer = answer;
    this.#paint();
  }

  zoom(steps, cell = this.cursor ?? Math.floor(this.window.count / 2)) {
    const { power, row } = this.window;
    const landed = this.window.zoom(steps, cell);
    if (this.window.power === power && this.window.row === row) return;
    this.#moveTo(landed);
    this.#changed();
  }

  pan(rows) {
    const { row } = this.window;
    this.window.pan(rows);
    if (this.window.row !== row) this.#changed();
  }

  whole() {
    this.window.whole();
    this.#changed();
  }

  center(offset) {
    if (this.window.isWhole) this.window.zoom(4, this.window.cellOf(offset));
    this.window.center(offset);
    this.#changed();
  }

  #changed() {
    this.answer = null;
    this.chosen = null;
    this.#paint();
    this.onwindow();
  }

  /* The size of a cell with which the whole volume, in cells of a power of two of blocks, fills the grid best. */
  #shape(blocks) {
    let best = null;
    for (let size = CELLS.least; size <= CELLS.most; size += 1) {
      const columns = Math.max(8, Math.floor((this.node.clientWidth - GUTTER) / (size + GAP)));
      const room = Math.max(HEIGHT.least, Math.min(HEIGHT.most, window.innerHeight - HEIGHT.around));
      const rows = Math.min(Math.floor(room / (size + GAP)), Math.floor(CELLS_MAX / columns));
      const capacity = columns * rows;
      const fill = blocks / 2 ** Math.max(0, Math.ceil(Math.log2(blocks / capacity))) / capacity;
      if (!best || fill > best.fill) best = { fill, size, columns, rows };
    }
    this.size = best.size;
    return [best.columns, best.rows];
  }

  #fit() {
    if (!this.window || !this.node.clientWidth) return;
    const [columns, rows] = this.#shape(this.window.blocks);
    if (columns === this.window.columns && rows === this.window.rows) return;
    this.window.resize(columns, rows);
    this.#changed();
  }

  /* --- drawing --- */

  #paint() {
    if (!this.window) return;
    const { columns, rows, count } = this.window;
    const width = GUTTER + columns * this.pitch;
    const height = rows * this.pitch + GAP;
    const scale = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const pen = this.canvas.getContext("2d");
    const colours = palette();
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.#labels(pen);
    const fits = this.answer && this.answer.start === this.window.start && this.answer.cell_bytes === this.window.cellBytes;
    const waiting = { base: "free", main: null, written: 0 };
    for (let cell = 0; cell < count; cell += 1) {
      const [x, y] = this.#corner(cell);
      drawCell(pen, x, y, this.size, fits ? lookOf(this.answer.cells, cell) : waiting, colours);
    }
    if (this.chosen !== null) this.#ring(pen, this.chosen, colours, []);
    if (this.cursor !== null && this.cursor < count) this.#ring(pen, this.cursor, colours, [3, 2]);
  }

  #labels(pen) {
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--muted");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const { rows, columns } = this.window;
    for (let row = 0; row < rows; row += 4) {
      const cell = row * columns;
      if (cell < this.window.count) pen.fillText(format.bytes(this.window.offsetOf(cell)), GUTTER - 8, this.#corner(cell)[1] + this.size / 2);
    }
  }

  #ring(pen, cell, colours, dash) {
    const [x, y] = this.#corner(cell);
    pen.strokeStyle = colours.background;
    pen.lineWidth = 4;
    pen.strokeRect(x - 1, y - 1, this.size + 2, this.size + 2);
    pen.strokeStyle = colours.cursor;
    pen.lineWidth = 2;
    pen.setLineDash(dash);
    pen.strokeRect(x - 1, y - 1, this.size + 2, this.size + 2);
    pen.setLineDash([]);
  }

  #corner(cell) {
    const { columns } = this.window;
    return [GUTTER + (cell % columns) * this.pitch, GAP + Math.floor(cell / columns) * this.pitch];
  }

  /* --- keys --- */

  #moveTo(cell) {
    this.cursor = Math.min(Math.max(cell, 0), Math.max(this.window.count - 1, 0));
    this.#paint();
    this.oncursor();
  }

  #step(cells) {
    const { columns, count } = this.window;
    const wanted = (this.cursor ?? 0) + cells;
    if (wanted >= 0 && wanted < count) {
      this.#moveTo(wanted);
      return;
    }
    const before = this.window.row;
    this.window.pan(wanted < 0 ? -1 : 1);
    if (this.window.row === before) return;
    this.#changed();
    this.#moveTo(wanted - (this.window.row - before) * columns);
  }

  #key(event) {
    if (!this.window || event.altKey || event.ctrlKey || event.metaKey) return;
    const { columns, rows } = this.window;
    const acts = {
      ArrowLeft: () => this.#step(-1),
      ArrowRight: () => this.#step(1),
      ArrowUp: () => this.#step(-columns),
      ArrowDown: () => this.#step(columns),
      PageUp: () => this.pan(-rows + 1),
      PageDown: () => this.pan(rows - 1),
      Home: () => this.#moveTo(0),
      End: () => this.#moveTo(this.window.count - 1),
      "+": () => this.zoom(1),
      "=": () => this.zoom(1),
      "-": () => this.zoom(-1),
      0: () => this.whole(),
      Enter: () => this.#choose(this.cursor),
      " ": () => this.#choose(this.cursor),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    acts[event.key]();
  }

  #choose(cell) {
    if (cell === null || cell >= this.window.count) return;
    this.chosen = cell;
    this.#moveTo(cell);
    this.onpick(cell);
  }

  /* --- mouse and touch --- */

  #cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - GUTTER) / this.pitch);
    const row = Math.floor((event.clientY - box.top) / this.pitch);
    const cell = row * this.window.columns + column;
    return column >= 0 && column < this.window.columns && cell >= 0 && cell < this.window.count ? cell : null;
  }

  #wheeled(event) {
    if (!this.window || (this.window.isWhole && event.deltaY > 0)) return;
    event.preventDefault();
    this.wheel += event.deltaY * (event.deltaMode === 1 ? 20 : 1);
    const steps = -Math.trunc(this.wheel / ZOOM_STEP);
    if (!steps) return;
    this.wheel = 0;
    if (event.shiftKey) this.pan(-steps);
    else this.zoom(Math.sign(steps), this.#cellAt(event) ?? undefined);
  }

  #down(event) {
    if (!this.window) return;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.node.setPointerCapture(event.pointerId);
    this.dragged = this.pointers.size > 1;
    this.left = 0;
    this.spread = this.#spread();
  }

  #spread() {
    const [a, b] = this.pointers.values();
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 2) {
      const now = this.#spread();
      const steps = Math.round(Math.log2(now / this.spread) * 2);
      if (steps && this.spread) {
        this.spread = now;
        this.zoom(steps, this.#cellAt(event) ?? undefined);
      }
      return;
    }
    this.left += before.y - event.clientY + (event.pointerType === "touch" ? before.x - event.clientX : 0);
    const rows = Math.trunc(this.left / this.pitch);
    if (!rows) return;
    this.dragged = true;
    this.left -= rows * this.pitch;
    this.pan(rows);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId) || this.dragged) return;
    const cell = this.#cellAt(event);
    if (cell !== null) this.#choose(cell);
  }
}
