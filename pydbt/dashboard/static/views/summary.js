/* A volume's figures in words: rates and amounts of the last minutes, its secondaries, and the whole status. */

import { cut, el, keyed, printable, setText, told } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { setBadge } from "../lib/levels.js";
import { meter, setMeter, setMeterLabel } from "../lib/meter.js";
import { Plot } from "../lib/plot.js";
import { nameOfSecondary, wordsOfSecondary } from "./parts.js";
import { View } from "./view.js";

const FACTS = [
  ["Mode", (view, now) => `${printable(view.mode ?? format.UNKNOWN)}${view.mode_since ? `, since ${format.clock(view.mode_since)} (${format.age(view.mode_since, now)})` : ""}`],
  ["Replica", (view) => printable(view.replica_state ?? format.UNKNOWN)],
  ["Connected", (view) => ({ true: "yes", false: "no" })[view.connected] ?? format.UNKNOWN],
  ["Last in sync", (view) => (view.last_in_sync ? format.clock(view.last_in_sync) : format.UNKNOWN)],
  ["Last verified", (view) => (view.last_verified ? format.clock(view.last_verified) : "none known")],
  ["Data behind", (view) => format.bytes(view.lag_bytes)],
  ["Size", (view) => format.bytes(view.status?.size_bytes ?? view.status?.size)],
  ["Heard", (view) => (typeof view.age_seconds === "number" ? `${format.seconds(view.age_seconds)} before this overview` : format.UNKNOWN)],
];

export class Summary extends View {
  constructor(body, ...known) {
    super(body, ...known);
    this.rates = new Plot({ title: "Rates", isLive: true, unit: format.rate, series: [["Written to the disk", "a"], ["Sent on the wire", "b"]] });
    this.amounts = new Plot({ title: "Behind", isLive: true, unit: format.bytes, series: [["Out of sync", "c"], ["of it unacknowledged", "a"]] });
    this.facts = el("dl", { class: "facts" });
    this.log = meter("Transaction log");
    this.ring = meter("Ring of data");
    this.secondaries = el("ul", { class: "cards" });
    this.noSecondary = el("p", { class: "muted" }, "None is known.");
    this.status = el("div");
    this.whole = el("details", { class: "whole-status", ontoggle: () => this.#status() }, el("summary", {}, "The whole status, as controller status --json prints it"), this.status);
    body.append(
      el("div", { class: "pair" }, el("div", { class: "panel" }, this.rates.node), el("div", { class: "panel" }, this.amounts.node)),
      el(
        "div",
        { class: "pair" },
        el("div", { class: "panel" }, el("h3", {}, "Figures"), this.facts, this.log, this.ring),
        el("div", { class: "panel" }, el("h3", {}, "Secondaries"), this.secondaries, this.noSecondary),
      ),
      el("div", { class: "panel" }, this.whole),
    );
  }

  close() {
    this.rates.close();
    this.amounts.close();
  }

  renew(one) {
    const { view } = one;
    this.one = one;
    const trace = this.store.traces.get(this.id) ?? [];
    const column = (index) => trace.map((row) => row[index] ?? null);
    this.rates.draw([column(0), column(1), column(2)]);
    this.amounts.draw([column(0), column(3), column(4)]);
    keyed(
      this.facts,
      FACTS,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (item, [, words]) => setText(item.lastElementChild, words(view, this.store.now)),
    );
    setMeterLabel(this.log, view.role === "secondary" ? "Journal" : "Transaction log");
    this.ring.hidden = view.role === "secondary";
    setMeter(this.log, view.log);
    setMeter(this.ring, view.queue);
    this.#secondaries(one);
    this.#status();
  }

  #secondaries({ view, isStale }) {
    const all = view.secondaries ?? [];
    this.noSecondary.hidden = all.length > 0;
    keyed(
      this.secondaries,
      all,
      nameOfSecondary,
      () => el("li", {}, el("span"), el("bdi"), el("p", { class: "words" }), el("p", { class: "muted" })),
      (item, other) => {
        const [mark, name, words, figures] = item.children;
        setBadge(mark, isStale ? "stale" : (other.level ?? "unknown"));
        setText(name, nameOfSecondary(other));
        setText(words, wordsOfSecondary(other));
        setText(
          figures,
          `lag ${format.seconds(other.lag_seconds)}, out of sync ${format.bytes(other.out_of_sync_bytes)}, ` +
            `unacknowledged ${format.bytes(other.unacknowledged_bytes)}, in sync ${format.age(other.last_in_sync, this.store.now)}`,
        );
      },
    );
  }

  #status() {
    if (!this.whole.open || !this.one) return;
    const rows = [...flat(this.one.view.status ?? {}, "")];
    const table = this.status.querySelector("tbody") ?? this.status.appendChild(el("table", { class: "plain" }, el("caption", { class: "unseen" }, "Status"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Key"), el("th", { scope: "col" }, "Value"))), el("tbody"))).querySelector("tbody");
    keyed(
      table,
      rows,
      ([key]) => key,
      ([key]) => el("tr", {}, el("th", { scope: "row" }, cut(key, 80)), el("td")),
      (row, [, value]) => {
        const cell = row.lastElementChild;
        const text = value === null ? "null: unknown" : String(value);
        if (cell.dataset.told === text) return;
        cell.dataset.told = text;
        cell.replaceChildren(told(text, 120));
      },
    );
  }
}

const MOST_ROWS = 400;

function* flat(value, prefix, left = { rows: MOST_ROWS }) {
  for (const [key, inner] of Object.entries(value)) {
    if (left.rows <= 0) return;
    const name = prefix ? `${prefix}.${key}` : key;
    if (inner && typeof inner === "object" && Object.keys(inner).length) yield* flat(inner, name, left);
    else {
      left.rows -= 1;
      yield [name, inner && typeof inner === "object" ? "" : inner];
    }
  }
}
