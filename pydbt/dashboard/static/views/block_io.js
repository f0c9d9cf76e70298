/* Block I/O as people who trace disks expect it: latencies, sizes, random against sequential, where on the disk, and its own cost. */

import { el, keyed, setAttribute, setText } from "../lib/dom.js";
import { Repeated } from "../lib/asking.js";
import * as format from "../lib/format.js";
import { HeatPlot } from "../lib/heat_plot.js";
import { View } from "./view.js";

const OPERATIONS = { read: "Reads", write: "Writes", flush: "Flushes", discard: "Discards" };
const PARTS = { queue: "Queue", device: "Device", total: "Both" };
const PERCENTILES = ["p50", "p95", "p99", "p99.9", "max"];
const PERCENTILE_WORDS = { max: "longest" };
const PACE_S = 1;

/** Draws an answer to `io`: of a controller, or of a recording at a moment. */
export class IoFigures {
  constructor(body) {
    this.operation = "write";
    this.note = el("p", { class: "muted" });
    this.choices = Object.entries(OPERATIONS).map(([key, words]) =>
      el("button", { type: "button", class: "tool", "data-key": key, onclick: () => this.#choose(key) }, words),
    );
    this.now = el("tbody");
    this.latencies = el("tbody");
    this.latencyHead = el("h3");
    this.sizesHead = el("h3");
    this.patternHead = el("h3", { class: "second" });
    this.sizes = el("ul", { class: "bars" });
    this.pattern = el("ul", { class: "bars" });
    this.cost = el("dl", { class: "facts" });
    this.costPanel = el("div", { class: "panel" }, el("h3", {}, "What pydbt itself costs"), this.cost);
    this.edges = [];
    this.heat = new HeatPlot({
      title: "Latency over time",
      label: (row) => format.nanoseconds(this.edges[row] ?? 0),
      amount: (count) => `${format.count(count)} I/Os`,
      height: 210,
      flip: true,
    });
    this.offsets = new HeatPlot({
      title: "Offset over time",
      label: (row) => format.bytes(row * (this.cellBytes ?? 0)),
      amount: (bytes) => format.bytes(bytes),
      height: 210,
      flip: false,
    });
    const table = (label, heads, rows) =>
      el(
        "div",
        { class: "scrolled", tabindex: "0", role: "region", "aria-label": label },
        el("table", { class: "plain figures-table" }, el("thead", {}, el("tr", {}, heads.map((words, index) => el("th", { scope: "col", class: index ? "number" : null }, words)))), rows),
      );
    const panel = (...parts) => el("div", { class: "panel" }, ...parts);
    const percentiles = PERCENTILES.map((key) => PERCENTILE_WORDS[key] ?? key);
    body.append(
      panel(el("h3", {}, "The last second"), table("I/O of the last second", ["Operation", "per second", "Data", "Random", "Errors", "p50", "p99", "longest"], this.now)),
      el("div", { class: "map-bar" }, el("div", { class: "tools", role: "group", "aria-label": "Operation that is shown" }, this.choices), this.note),
      el("div", { class: "pair" }, panel(this.heat.node), panel(this.offsets.node)),
      el(
        "div",
        { class: "pair" },
        panel(this.latencyHead, table("Latencies of the last minute", ["Part", "timed", ...percentiles], this.latencies)),
        panel(this.sizesHead, this.sizes, this.patternHead, this.pattern),
      ),
      this.costPanel,
    );
    this.#choose(this.operation);
  }

  close() {
    this.heat.close();
    this.offsets.close();
  }

  #choose(operation) {
    this.operation = operation;
    for (const button of this.choices) setAttribute(button, "aria-pressed", String(button.dataset.key === operation));
    if (this.answer) this.draw(this.answer);
  }

  draw(answer) {
    this.answer = answer;
    if (!answer.now) return;
    this.#now(answer);
    this.#heats(answer);
    this.#minute(answer.minute ?? answer.now);
    this.#cost(answer);
    const every = answer.timed_every ?? 1;
    setText(
      this.note,
      (every > 1 ? `The device is busy: the time of one I/O in ${every} is taken. All are counted. ` : "") +
        (answer.in_requests === false ? "This device has no queue of its own: only the whole time is known." : ""),
    );
  }

  #now(answer) {
    keyed(
      this.now,
      Object.entries(OPERATIONS),
      ([key]) => key,
      ([, words]) => el("tr", {}, el("th", { scope: "row" }, words), Array.from({ length: 7 }, () => el("td", { class: "number" }))),
      (row, [key]) => {
        const one = answer.now[key] ?? {};
        const total = one.latency_ns?.total ?? {};
        const random = one.random + one.sequential;
        const words = [
          format.count(one.per_second),
          format.rate(one.bytes_per_second),
          random ? format.percent(one.random / random) : "–",
          format.count(one.errors),
          latencyWords(total.p50, one.count),
          latencyWords(total.p99, one.count),
          latencyWords(total.max, one.count),
        ];
        words.forEach((text, index) => setText(row.children[index + 1], text));
      },
    );
  }

  #heats(answer) {
    const { latency_heat: latency, offset_heat: offset } = answer;
    const moments = answer.moments ?? [];
    if (latency) {
      this.edges = latency.edges_ns;
      const columns = latency.columns[this.operation] ?? [];
      const [from, until] = usedRows(columns, this.edges.length);
      this.heat.draw(columns, moments, from, until);
      const total = (answer.minute ?? answer.now)[this.operation]?.latency_ns?.total ?? {};
      this.heat.say(`${OPERATIONS[this.operation].toLowerCase()}, half of them within ${format.nanoseconds(total.p50)}, 99 % within ${format.nanoseconds(total.p99)}`);
    }
    if (offset) {
      this.cellBytes = offset.cell_bytes;
      this.offsets.draw(offset.columns[this.operation] ?? [], moments, 0, Math.max(offset.cells, 1));
      this.offsets.say(`${OPERATIONS[this.operation].toLowerCase()}, by their place on the device`);
    }
  }

  #minute(minute) {
    const one = minute[this.operation] ?? {};
    const span = `last ${format.seconds(minute.seconds ?? 60)}`;
    setText(this.latencyHead, `Latencies of ${OPERATIONS[this.operation].toLowerCase()}, ${span}`);
    setText(this.sizesHead, `Sizes, ${span}`);
    setText(this.patternHead, `Random against sequential, ${span}`);
    keyed(
      this.latencies,
      Object.entries(PARTS),
      ([key]) => key,
      ([, words]) => el("tr", {}, el("th", { scope: "row" }, words), Array.from({ length: PERCENTILES.length + 1 }, () => el("td", { class: "number" }))),
      (row, [key]) => {
        const spread = one.latency_ns?.[key] ?? {};
        setText(row.children[1], format.count(spread.count));
        PERCENTILES.forEach((name, index) => setText(row.children[index + 2], latencyWords(spread[name], spread.count)));
      },
    );
    bars(this.sizes, (one.sizes ?? []).map(([size, count]) => [`${format.bytes(size)} and more`, count, format.count(count)]));
    bars(this.pattern, one.sequential || one.random ? [["sequential", one.sequential, format.count(one.sequential)], ["random", one.random, format.count(one.random)]] : []);
  }

  #cost({ cost }) {
    this.costPanel.hidden = !cost;
    if (!cost) return;
    const rows = [
      ["Capture, per I/O", format.nanoseconds(cost.capture_ns_per_io)],
      ["Observing programs, per I/O", format.nanoseconds(cost.observing_ns_per_io)],
      ["Controller, of one core", typeof cost.controller_cpu_percent === "number" ? format.percent(cost.controller_cpu_percent / 100) : format.UNKNOWN],
      ["Controller, memory", format.bytes(cost.controller_memory_bytes)],
    ];
    keyed(
      this.cost,
      rows,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (item, [, words]) => setText(item.lastElementChild, words),
    );
  }
}

export class BlockIo extends View {
  constructor(body, ...known) {
    super(body, ...known);
    body.append(this.problem);
    this.figures = new IoFigures(body);
    this.asking = new Repeated(() => `api/volumes/${this.id}/io`, PACE_S, (answer) => this.#draw(answer), (words) => this.problemIs(words));
  }

  close() {
    this.asking.stop();
    this.figures.close();
  }

  #draw(answer) {
    this.problemIs(format.waitsFor(answer));
    this.figures.draw(answer);
  }
}

/* Without any I/O there is no latency to be known. */
function latencyWords(value, count) {
  return count === 0 ? "–" : format.nanoseconds(value);
}

/* The rows that were used, with some room, so that the picture stands still while figures waver. */
function usedRows(columns, count) {
  let least = count;
  let most = 0;
  for (const column of columns) {
    column.forEach((one, row) => {
      if (!one) return;
      least = Math.min(least, row);
      most = Math.max(most, row + 1);
    });
  }
  if (least >= most) return [4, Math.min(18, count)];
  const from = Math.max(0, Math.floor((least - 1) / 2) * 2);
  return [from, Math.min(count, Math.max(from + 10, Math.ceil((most + 1) / 2) * 2))];
}

function bars(list, rows) {
  const most = Math.max(1, ...rows.map(([, value]) => value));
  keyed(
    list,
    rows.length ? rows : [["none in this time", 0, ""]],
    ([name]) => name,
    ([name]) => el("li", {}, el("span", {}, name), el("span", { class: "bar", "aria-hidden": "true" }, el("i")), el("b")),
    (item, [, value, words]) => {
      item.children[1].firstElementChild.style.width = `${(value / most) * 100}%`;
      setText(item.children[2], words);
    },
  );
}
