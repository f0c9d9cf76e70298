/* Seven days of figures and events, as the volume's controller keeps them; zoomable, with every restart marked. */

import { el, setAttribute, setText } from "../lib/dom.js";
import { Repeated } from "../lib/asking.js";
import { EventList } from "../lib/event_list.js";
import * as format from "../lib/format.js";
import { Plot } from "../lib/plot.js";
import { View } from "./view.js";

const SPANS = [
  ["1 hour", 3600],
  ["6 hours", 6 * 3600],
  ["1 day", 86400],
  ["7 days", 7 * 86400],
];
const LONGEST_S = 7 * 86400;
const SHORTEST_S = 30;
const POINTS = 600;
const PACE_S = 5;

/* Columns that belong into one plot, in the order of the page. Others get plots by their unit. */
const GROUPS = [
  { title: "Lag", unit: format.seconds, splits: null, columns: { lag_seconds: "Lag" } },
  { title: "Behind", unit: format.bytes, columns: { out_of_sync_bytes: "Out of sync", unacknowledged_bytes: "of it unacknowledged", lag_bytes: "Data behind" } },
  { title: "Rates", unit: format.rate, columns: { write_rate_bytes: "Written to the disk", wire_rate_bytes: "Sent on the wire" } },
  { title: "Replica", unit: stateWords, splits: () => [0, 1, 2, 3], columns: { replica_state: "State" } },
  { title: "Connection", unit: (value) => (value ? "away" : "connected"), splits: () => [0, 1], columns: { disconnected: "Secondary" } },
  { title: "Journal", unit: format.bytes, columns: { journal_used_bytes: "Used", unapplied_bytes: "Not applied yet", staged_bytes: "Staged" } },
  { title: "Fill", unit: format.bytes, columns: { log_used_bytes: "Transaction log", queue_used_bytes: "Ring of data" } },
];

export class History extends View {
  constructor(body, ...known) {
    super(body, ...known);
    this.span = SPANS[0][1];
    this.until = null; /* null: now */
    this.plots = new Map();
    this.nothing = el("p", { class: "notice", role: "status", hidden: true }, "Nothing was kept of this span.");
    this.where = el("p", { class: "where" });
    this.choices = SPANS.map(([words, seconds]) =>
      el("button", { type: "button", class: "tool", onclick: () => this.#show(seconds, null) }, words),
    );
    const tool = (words, label, act) => el("button", { type: "button", class: "tool", "aria-label": label, title: label, onclick: act }, words);
    this.now = tool("Now", "Follow the present", () => this.#show(this.span, null));
    this.later = tool("→", "Later", () => this.#show(this.span, this.#end + this.span / 2));
    this.tools = el(
      "div",
      { class: "tools", role: "group", "aria-label": "Span of time" },
      this.choices,
      tool("+", "Zoom in", () => this.#show(this.span / 2, this.until === null ? null : this.until - this.span / 4)),
      tool("−", "Zoom out", () => this.#show(this.span * 2, this.until === null ? null : this.until + this.span / 2)),
      tool("←", "Earlier", () => this.#show(this.span, this.#end - this.span / 2)),
      this.later,
      this.now,
    );
    this.holder = el("div", { class: "pair plots" });
    this.events = new EventList();
    body.append(
      el("div", { class: "map-bar" }, this.tools, this.where),
      this.problem,
      this.nothing,
      this.holder,
      el("div", { class: "panel" }, el("h3", {}, "Events and restarts in this span"),
        el("p", { class: "muted" }, "A point of a plot is the worst of its interval. Where a line is missing, nothing was known."), this.events.node),
    );
    this.#where();
    this.asking = new Repeated(() => this.#path(), PACE_S, (answer) => this.#draw(answer), (words) => this.problemIs(words));
  }

  close() {
    this.asking.stop();
    for (const { plot } of this.plots.values()) plot.close();
  }

  get #end() {
    return this.until ?? this.store.now;
  }

  #path() {
    const until = this.#end;
    return `api/volumes/${this.id}/history?from=${Math.floor(until - this.span)}&until=${Math.ceil(until)}&points=${POINTS}`;
  }

  #show(span, until) {
    this.span = Math.min(Math.max(span, SHORTEST_S), LONGEST_S);
    this.until = until !== null && until < this.store.now ? Math.max(until, this.store.now - LONGEST_S + this.span) : null;
    if (this.until !== null && this.until >= this.store.now) this.until = null;
    this.#where();
    this.asking.again();
  }

  #where() {
    const until = this.#end;
    setText(this.where, `${format.clock(until - this.span)} to ${this.until === null ? "now" : format.clock(until)}, ${format.seconds(this.span)}`);
    for (const [index, button] of this.choices.entries()) setAttribute(button, "aria-pressed", String(this.span === SPANS[index][1]));
    this.later.disabled = this.now.disabled = this.until === null;
  }

  #draw(answer) {
    this.problemIs(answer.problem ?? "");
    const until = this.#end;
    this.range = [until - this.span, until];
    this.restarts = answer.restarts ?? [];
    this.shownEvents = answer.events ?? [];
    const columns = answer.columns ?? [];
    const rows = withGaps(answer.rows ?? [], this.span / POINTS);
    const moments = rows.map((row) => row[0]);
    const wanted = groupsOf(columns.slice(1));
    for (const [title, held] of this.plots) {
      if (wanted.some((group) => group.title === title)) continue;
      held.plot.close();
      held.plot.node.parentElement.remove();
      this.plots.delete(title);
    }
    for (const group of wanted) {
      const { plot } = this.plots.get(group.title) ?? this.#plot(group);
      plot.draw([moments, ...group.indexes.map((index) => rows.map((row) => row[index + 1] ?? null))], this.range);
    }
    this.nothing.hidden = rows.length > 0 || Boolean(answer.problem);
    this.#where();
    this.#events();
  }

  #plot(group) {
    const plot = new Plot({
      title: group.title,
      unit: group.unit,
      splits: group.splits,
      series: group.names.map((words, index) => [words, "abcde"[index % 5]]),
      sync: "history",
      onzoom: (from, until) => this.#show(until - from, until),
      marks: (self, colour) => this.#marks(self, colour),
    });
    this.holder.append(el("div", { class: "panel" }, plot.node));
    const held = { plot };
    this.plots.set(group.title, held);
    return held;
  }

  /* Restarts as dashed lines with a square, graver events as ticks with a triangle. */
  #marks(self, colour) {
    const pen = self.ctx;
    const { left, top, width, height } = self.bbox;
    pen.save();
    pen.beginPath();
    pen.rect(left - 8, top - 2, width + 16, height + 4);
    pen.clip();
    const scale = window.devicePixelRatio || 1;
    const line = (moment, name, dash, shape) => {
      const x = self.valToPos(moment, "x", true);
      pen.strokeStyle = pen.fillStyle = colour(name);
      pen.lineWidth = 1.2 * scale;
      pen.setLineDash(dash.map((one) => one * scale));
      pen.beginPath();
      pen.moveTo(x, top);
      pen.lineTo(x, top + height);
      pen.stroke();
      pen.setLineDash([]);
      pen.beginPath();
      if (shape === "square") pen.rect(x - 4 * scale, top, 8 * scale, 8 * scale);
      else {
        pen.moveTo(x - 5 * scale, top + 9 * scale);
        pen.lineTo(x + 5 * scale, top + 9 * scale);
        pen.lineTo(x, top);
      }
      pen.fill();
    };
    for (const moment of this.restarts ?? []) line(moment, "stopped", [4, 3], "square");
    for (const event of this.shownEvents ?? []) {
      const moment = format.moment(event.moment);
      if (moment !== null && this.events.gravityOf(event) === "bad") line(moment, "bad", [1, 3], "triangle");
    }
    pen.restore();
  }

  #events() {
    const restarts = this.restarts.map((moment) => ({ moment, name: "restart", words: "A controller began here.", figures: {} }));
    this.events.draw([...this.shownEvents, ...restarts]);
  }
}

const STATES = ["up-to-date", "consistent", "outdated", "inconsistent"];

function stateWords(value) {
  return STATES[Math.round(value)] ?? format.UNKNOWN;
}

/* Where nothing was kept for longer than some points, the line has a gap. */
function withGaps(rows, pace) {
  const found = [];
  const steps = [];
  for (let index = 1; index < rows.length; index += 1) steps.push(rows[index][0] - rows[index - 1][0]);
  steps.sort((a, b) => a - b);
  const usual = Math.max(steps[Math.floor(steps.length / 2)] ?? pace, pace);
  for (const row of rows) {
    const before = found.at(-1);
    if (before && row[0] - before[0] > 4 * usual) found.push([before[0] + usual, ...Array(row.length - 1).fill(null)]);
    found.push(row);
  }
  return found;
}

function groupsOf(names) {
  const left = new Set(names);
  const groups = [];
  for (const group of GROUPS) {
    const own = Object.keys(group.columns).filter((name) => left.has(name));
    own.forEach((name) => left.delete(name));
    if (own.length) groups.push({ ...group, names: own.map((name) => group.columns[name]), indexes: own.map((name) => names.indexOf(name)) });
  }
  for (const name of left) {
    const unit = name.endsWith("_bytes") ? format.bytes : name.endsWith("_seconds") ? format.seconds : name.endsWith("_ns") ? format.nanoseconds : plain;
    groups.push({ title: titleOf(name), unit, splits: unit === format.bytes ? undefined : null, names: [titleOf(name)], indexes: [names.indexOf(name)] });
  }
  return groups;
}

const plain = (value) => (value === null || value === undefined ? format.UNKNOWN : String(Math.round(value * 100) / 100));

function titleOf(name) {
  const words = name.replace(/_(bytes|seconds|ns)$/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
