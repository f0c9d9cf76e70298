/* The block map: the whole volume as a grid of cells, down to single blocks. The view asks, the grid draws. */

import { el, keyed, setAttribute, setText, told } from "../lib/dom.js";
import { Repeated, ask } from "../lib/asking.js";
import * as format from "../lib/format.js";
import { BASES, KINDS, swatch } from "../lib/map_tiles.js";
import { MapGrid } from "./map_grid.js";
import { Strip } from "./map_strip.js";
import { View } from "./view.js";

const PACE_S = 1;
const STRIP_PACE_S = 3;
const STRIP_CELLS = 256;
const RANGES = 3;
const HELP =
  "Arrows move from cell to cell, plus and minus zoom, Page Up and Page Down scroll, 0 shows all, Enter names the block's file. " +
  "With a mouse: the wheel zooms, dragging scrolls, a click names. On a touch screen: two fingers zoom, a tap names.";

export class BlockMap extends View {
  constructor(body, ...known) {
    super(body, ...known);
    this.answer = null;
    this.grid = new MapGrid({ onwindow: () => this.#moved(), onpick: (cell) => this.#pick(cell), oncursor: () => this.#cursor(true) });
    this.strip = new Strip((offset) => this.grid.center(offset));
    this.where = el("p", { class: "where" });
    this.said = el("p", { class: "cell-words" });
    this.spoken = el("p", { class: "unseen", role: "status" }); /* to a screen reader: when a person moves, not each second */
    this.kinds = el("tbody");
    this.bound = el("p", { class: "muted", hidden: true });
    this.named = el("div", { class: "named" }, el("p", { class: "muted" }, "Choose a cell: its extent and its file are named here."));
    const button = (words, label, act) => el("button", { type: "button", class: "tool", "aria-label": label, title: label, onclick: act }, words);
    this.tools = [
      button("+", "Zoom in", () => this.grid.zoom(1)),
      button("−", "Zoom out", () => this.grid.zoom(-1)),
      button("↑", "Earlier part of the volume", () => this.grid.pan(-this.grid.window.rows + 1)),
      button("↓", "Later part of the volume", () => this.grid.pan(this.grid.window.rows - 1)),
      button("Whole volume", "Show the whole volume", () => this.grid.whole()),
    ];
    setAttribute(this.grid.node, "aria-describedby", "map-help");
    body.append(
      el(
        "div",
        { class: "map-layout" },
        el(
          "div",
          { class: "panel map-panel" },
          el("div", { class: "map-bar" }, el("div", { class: "tools", role: "group", "aria-label": "Zoom and scroll" }, this.tools), this.where),
          this.strip.node,
          this.problem,
          this.grid.node,
          this.said,
          this.spoken,
          el("details", { class: "help" }, el("summary", {}, "Keys, mouse and touch"), el("p", { id: "map-help" }, HELP)),
        ),
        el(
          "div",
          { class: "panel map-side", tabindex: "0", role: "region", "aria-label": "What this part consists of" },
          el("h3", {}, "In this part"),
          el(
            "table",
            { class: "plain kinds" },
            el("caption", { class: "unseen" }, "What the part of the volume that is shown consists of"),
            el("thead", {}, el("tr", {}, ["", "State", "Size", "Where"].map((words) => (words ? el("th", { scope: "col" }, words) : el("td"))))),
            this.kinds,
          ),
          this.bound,
          el("h3", {}, "Chosen cell"),
          this.named,
        ),
      ),
    );
  }

  close() {
    this.asking?.stop();
    this.stripAsking?.stop();
    this.grid.close();
    this.strip.close();
  }

  renew(one) {
    const { view } = one;
    const size = view.status?.size_bytes ?? null;
    const block = view.status?.block_bytes ?? null;
    this.isReplica = view.role === "secondary";
    if (this.isReplica) this.problemIs("The map is kept by the primary: open the volume on its machine.");
    else if (!size || !block) this.problemIs("The size of this volume is not known, so there is no map of it.");
    else if (!this.asking) {
      this.grid.open(size, block);
      this.asking = new Repeated(() => this.#path(), PACE_S, (answer) => this.#draw(answer), (words) => this.problemIs(words));
      const all = () => `api/volumes/${this.id}/map?start=0&end=${size}&cells=${STRIP_CELLS}`;
      this.stripAsking = new Repeated(all, STRIP_PACE_S, (answer) => this.strip.draw(answer, this.grid.window), () => {});
    }
    this.inHead = view.mode === "normal" ? null : view.out_of_sync_bytes;
    if (this.answer) this.#bound(this.answer);
  }

  #path() {
    const { window } = this.grid;
    return window ? `api/volumes/${this.id}/map?start=${window.start}&end=${window.end}&cells=${window.capacity}` : null;
  }

  #moved() {
    this.answer = null; /* it is of another part */
    this.picked = null;
    this.asking?.again();
    this.#where();
  }

  #where() {
    const { window } = this.grid;
    setText(
      this.where,
      `${format.bytes(window.start)} to ${format.bytes(window.end)} of ${format.bytes(window.sizeBytes)}; ` +
        `a cell is ${format.bytes(window.cellBytes)}${window.isDeepest ? ", one block" : ""}`,
    );
    this.tools[0].disabled = window.isDeepest;
    this.tools[1].disabled = this.tools[4].disabled = window.isWhole;
    this.tools[2].disabled = window.start === 0;
    this.tools[3].disabled = window.end >= window.sizeBytes;
    this.strip.window(window);
  }

  #draw(answer) {
    this.answer = answer;
    this.problemIs("");
    this.grid.draw(answer);
    this.#where();
    this.#kinds(answer);
    this.#bound(answer);
    this.#cursor(this.toBeSpoken);
    if (this.picked) setText(this.picked.state, this.#stateWords(this.picked.cell));
  }

  /* The legend, and the map in words: for each kind how much, and where. */
  #kinds(answer) {
    const unknown = new Set(answer.unknown ?? []);
    const rows = [
      ["insync", BASES.insync, ...inSync(answer)],
      ...Object.entries(KINDS).map(([kind, words]) => [kind, wordsOf(kind, words, answer), ...amountOf(answer, kind, unknown)]),
      ["unknown", BASES.unknown, unknown.size ? "" : "nothing", [...unknown].map((kind) => KINDS[kind] ?? kind).join(", ")],
    ];
    keyed(
      this.kinds,
      rows,
      ([kind]) => kind,
      ([kind]) => el("tr", { "data-kind": kind }, el("td", {}, swatch(kind)), el("th", { scope: "row" }), el("td", { class: "number" }), el("td", { class: "ranges" })),
      (row, [, words, amount, where]) => {
        setText(row.children[1], words);
        setText(row.children[2], amount);
        setText(row.children[3], where);
      },
    );
  }

  /* Outside of mode normal the status counts what the kernel's bitmaps have beside what is in the maps, and is an upper bound. */
  #bound(answer) {
    const here = this.grid.window.isWhole ? answer.bytes?.out_of_sync : null;
    this.bound.hidden = typeof here !== "number" || typeof this.inHead !== "number" || this.inHead <= here * 1.02;
    if (this.bound.hidden) return;
    setText(this.bound, `The ${format.bytes(this.inHead)} above are an upper bound: a block that is out of sync and was written again in the last seconds is counted again there. This map counts it once.`);
  }

  #stateWords(cell) {
    return this.#cellWords(cell).split(": ").slice(1).join(": ") || format.UNKNOWN;
  }

  /* The cell at the cursor in words; with the file, once it was named. */
  #cursor(isSpoken) {
    const { cursor } = this.grid;
    const words = this.#cellWords(cursor);
    const file = this.picked?.cell === cursor ? `; file: ${this.picked.file}` : "";
    setText(this.said, words ? words + file : "");
    if (isSpoken && words) setText(this.spoken, words + file);
    this.toBeSpoken = Boolean(isSpoken && !words);
  }

  #cellWords(cell) {
    const { window } = this.grid;
    if (!this.answer || cell === null || cell >= window.count) return "";
    const from = window.offsetOf(cell);
    const kinds = Object.entries(KINDS)
      .filter(([kind]) => this.answer.cells[kind]?.[cell])
      .map(([kind, words]) => `${words.toLowerCase()} ${format.percent(this.answer.cells[kind][cell] / 255)}`);
    const rest = this.answer.cells.out_of_sync ? "in sync" : "unknown";
    return `${format.place(from)}, ${format.bytes(window.cellBytes)}: ${kinds.join(", ") || rest}`;
  }

  async #pick(cell) {
    const { window } = this.grid;
    const offset = window.offsetOf(cell);
    this.picking?.abort();
    this.picking = new AbortController();
    const facts = (rows) => el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    const cellRows = [
      ["Cell", `${format.place(offset)} to ${format.place(Math.min(offset + window.cellBytes, window.sizeBytes))}`],
      ["Blocks", `${format.count(offset / window.blockBytes)}${window.isDeepest ? "" : ` to ${format.count((offset + window.cellBytes) / window.blockBytes - 1)}`}`],
      ["State", this.#stateWords(cell)],
    ];
    this.named.replaceChildren(facts([...cellRows, ["File of its first block", "asking…"]]));
    let rows;
    try {
      const answer = await ask(`api/volumes/${this.id}/block?offset=${offset}`, this.picking.signal);
      const extent = answer.extent ? `${format.place(answer.extent.start)}, ${format.bytes(answer.extent.length)} long` : format.UNKNOWN;
      rows = [["File of its first block", answer.file ? told(answer.file, 120) : format.UNKNOWN], ["Extent", extent], ["How it is known", told(answer.why ?? "", 200)]];
    } catch (error) {
      if (error.name === "AbortError") return;
      rows = [["File of its first block", format.UNKNOWN], ["Why", error.message]];
    }
    this.named.replaceChildren(facts([...cellRows, ...rows]));
    if (window.start + cell * window.cellBytes !== offset) return; /* it was scrolled meanwhile */
    const values = this.named.querySelectorAll("dd");
    this.picked = { cell, state: values[2], file: values[3].textContent.slice(0, 200) };
    setText(values[2], this.#stateWords(cell));
    this.#cursor(true);
  }
}

function wordsOf(kind, words, answer) {
  if (kind === "written" && typeof answer.written_seconds === "number") return `Written, last ${format.seconds(Math.ceil(answer.written_seconds))}`;
  if (kind === "swept" && typeof answer.sweep === "number") return `${words}, at ${format.bytes(answer.sweep)}`;
  return words;
}

function amountOf(answer, kind, unknown) {
  const shares = answer.cells[kind];
  if (unknown.has(kind) || !shares) return [format.UNKNOWN, ""];
  const bytes = answer.bytes?.[kind] ?? shares.reduce((sum, one) => sum + one, 0) / 255 * answer.cell_bytes;
  return [bytes ? format.bytes(bytes) : "nothing", rangesOf(answer, (index) => shares[index] > 0)];
}

function inSync(answer) {
  const out = answer.cells.out_of_sync;
  if (!out) return [format.UNKNOWN, ""];
  const covered = answer.end - answer.start;
  const bytes = Math.max(covered - (answer.bytes?.out_of_sync ?? out.reduce((sum, one) => sum + one, 0) / 255 * answer.cell_bytes), 0);
  return [format.bytes(bytes), answer.cells.free ? "with what is free" : "with what is free: where is unknown"];
}

/* The first places that have it, cells that touch taken together. */
function rangesOf(answer, has) {
  const count = Math.ceil((answer.end - answer.start) / answer.cell_bytes);
  const found = [];
  let more = 0;
  for (let index = 0; index < count; index += 1) {
    if (!has(index)) continue;
    const first = index;
    while (index + 1 < count && has(index + 1)) index += 1;
    if (found.length >= RANGES) {
      more += 1;
      continue;
    }
    const until = Math.min(answer.start + (index + 1) * answer.cell_bytes, answer.end);
    found.push(`${format.bytes(answer.start + first * answer.cell_bytes)}\u2060–\u2060${format.bytes(until)}`);
  }
  return found.join(", ") + (more ? `, ${more} more` : "");
}
