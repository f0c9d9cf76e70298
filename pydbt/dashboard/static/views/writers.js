/* Who writes: bytes by process, by control group and by file; what each dirtied and what was written apart. */

import { el, keyed, setAttribute, setText, told } from "../lib/dom.js";
import { Repeated } from "../lib/asking.js";
import * as format from "../lib/format.js";
import { writersOf } from "../lib/shapes.js";
import { View } from "./view.js";

const PACE_S = 1;
const TABLES = [
  ["processes", "By process", "Process"],
  ["groups", "By unit, container or control group", "Group"],
  ["files", "By file", "File"],
];
const COLUMNS = [
  ["writtenRate", "Written per second", format.rate],
  ["dirtiedRate", "Dirtied per second", format.rate],
  ["written", "Written", format.bytes],
  ["dirtied", "Dirtied", format.bytes],
  ["outOfNormal", "Written while behind", format.bytes],
];
/* Rows that are no process, group or file of their own. */
const SPECIAL = new Set(["journal", "metadata", "before", "unknown", "others", "no_file", "device"]);

export class Writers extends View {
  constructor(body, ...known) {
    super(body, ...known);
    this.outrun = el("p", { class: "problem", role: "status", hidden: true });
    this.behind = el("p", { hidden: true });
    this.limits = el("p", { class: "muted", hidden: true });
    this.facts = el("dl", { class: "facts" });
    this.head = el("div", { class: "panel" });
    this.tables = TABLES.map(([key, title, head]) => {
      const rows = el("tbody");
      const sum = el("p", { class: "muted" });
      const table = el(
        "table",
        { class: "plain figures-table writers" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, head), el("th", { scope: "col" }, "Part of what is written"), COLUMNS.map(([, words]) => el("th", { scope: "col", class: "number" }, words)))),
        rows,
      );
      return { key, rows, sum, node: el("div", { class: "panel" }, el("h3", {}, title), el("div", { class: "scrolled tall", tabindex: "0", role: "region", "aria-label": title }, table), sum) };
    });
    body.append(
      this.problem,
      this.outrun,
      this.head,
      ...this.tables.map(({ node }) => node),
    );
    this.head.append(
      this.facts,
      this.behind,
      this.limits,
      el("p", { class: "muted" }, "Dirtied: changed in memory, to be written later, perhaps many times over. Written: what the disk was given. The last column has what was written since the volume left mode normal, 0 while it is in it: where its out-of-sync bytes come from."),
      el("p", { class: "muted" }, "It is an upper bound: a block that is written twice counts twice."),
    );
    this.asking = new Repeated(() => `api/volumes/${this.id}/writers`, PACE_S, (answer) => this.#draw(answer), (words) => this.problemIs(words));
  }

  close() {
    this.asking.stop();
  }

  #draw(answer) {
    const writers = writersOf(answer);
    this.problemIs(format.waitsFor(writers));
    this.#say(this.outrun, outrunWords(writers.outrun));
    this.#say(this.behind, behindWords(writers.outOfSync));
    this.#say(this.limits, writers.limits);
    this.#facts(writers);
    for (const table of this.tables) this.#table(table, writers[table.key], writers.excess);
  }

  #say(node, words) {
    node.hidden = !words;
    if (node.dataset.told === words) return;
    node.dataset.told = words;
    node.replaceChildren(told(words, 300));
  }

  #facts(writers) {
    const rows = [
      ["Captured in all", format.bytes(writers.counted ?? writers.captured)],
      ["Watched", writers.since ? `since ${format.clock(writers.since)}` : format.UNKNOWN],
      ["Without the name of a file", lostWords(writers.lostFiles, "too many files at once")],
      ["Without the name of a process", lostWords(writers.lostProcesses, "too many processes at once")],
      ["Counted", writers.sampled ? "in samples" : "every event"],
    ];
    keyed(
      this.facts,
      rows,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (item, [, words]) => setText(item.lastElementChild, words),
    );
  }

  #table({ rows, sum }, entries, excess) {
    const all = entries.reduce((total, one) => total + (one.written ?? 0), 0);
    keyed(
      rows,
      entries,
      (one) => one.key,
      (one) => el("tr", { class: SPECIAL.has(one.kind) ? "special" : null }, el("th", { scope: "row" }), el("td", {}, el("span", { class: "bar", "aria-hidden": "true" }, el("i")), el("b")), COLUMNS.map(() => el("td", { class: "number" }))),
      (row, one) => {
        const [name, part, ...figures] = row.children;
        const key = `${one.name}\n${one.more}`;
        if (name.dataset.told !== key) {
          name.dataset.told = key;
          name.replaceChildren(told(one.name, 90), ...(one.more ? [el("div", { class: "muted" }, told(one.more, 120))] : []));
        }
        const share = all ? (one.written ?? 0) / all : 0;
        part.firstElementChild.firstElementChild.style.width = `${share * 100}%`;
        setText(part.lastElementChild, format.percent(share));
        COLUMNS.forEach(([column, , words], index) => setText(figures[index], words(one[column])));
      },
    );
    const tooMuch = excess ? ` That is ${format.bytes(excess)} more than the volume's capture counted: a fault, and something was counted twice.` : "";
    setText(sum, entries.length ? `The rows add up to ${format.bytes(all)} written.${tooMuch}` : "Nothing was seen yet.");
    setAttribute(sum, "data-sum", String(all));
  }
}

function outrunWords(outrun) {
  if (!outrun) return "";
  const group = outrun.group ? ` of ${outrun.group}` : "";
  return (
    `One process outruns the link: ${outrun.name} (process ${outrun.process}${group}) writes ${plain(format.rate(outrun.rate_bytes))}, ` +
    `the link carries ${plain(format.rate(outrun.link_rate_bytes))}, since ${format.clock(outrun.since)}.`
  );
}

/* Their bytes are in the rows of their process, or in the row *unknown*. */
function lostWords(times, why) {
  return times ? `${format.count(times)} times: ${why}` : times === 0 ? "none" : format.UNKNOWN;
}

function behindWords(outOfSync) {
  if (!outOfSync) return "";
  return (
    `Outside of mode normal since ${format.clock(outOfSync.since)}: ${plain(format.bytes(outOfSync.bytes))} are out of sync. ` +
    `${plain(format.bytes(outOfSync.written_bytes))} were written since ${format.clock(outOfSync.watched_since)}, when this was watched.`
  );
}

/* The sentence is shown as one of others is: a blank that does not break would be shown as an escape. */
function plain(words) {
  return words.replaceAll("\u00a0", " ");
}
