/* Every volume of every machine, a row each: how it stands, how far behind, how fast. */

import { cut, el, keyed, setAttribute, setText, told } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { badge, LEVEL_WORDS, setBadge, shapeOf, WORST_FIRST } from "../lib/levels.js";
import { meter, setMeter, setMeterLabel } from "../lib/meter.js";
import { Spark } from "../lib/spark.js";
import { shownLevel, shownLevelWords, shownWords } from "../lib/store.js";
import { forecastWords, progressBar, secondariesOf, setProgress } from "./parts.js";

const COLUMNS = ["State", "Volume", "Standing", "Lag", "Out of sync", "Age of last", "Disk and wire", "Log and ring"];

const MEANINGS = {
  good: "The replica has everything but what is on its way.",
  behind: "The replica lacks something, and gets it without a person.",
  bad: "A person is needed, or the replica cannot be used. The words beside it name the reason.",
  stopped: "No controller runs. The figures are the last ones known.",
  unknown: "Nobody knows.",
  stale: "What is shown is old: no controller, machine or server has answered since.",
};

export class Overview {
  constructor(main, store) {
    this.store = store;
    this.level = null;
    this.heading = el("h1", { tabindex: "-1" }, "Volumes");
    this.summary = el("p", { class: "summary" });
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Show one level only" });
    this.totals = el("dl", { class: "totals" });
    this.machines = el("ul", { class: "machines" });
    this.rows = el("div", { class: "rows", role: "rowgroup" });
    this.empty = el("p", { class: "empty", hidden: true });
    this.table = el(
      "div",
      { class: "volumes", role: "table", "aria-label": "Volumes" },
      el(
        "div",
        { role: "rowgroup", class: "heads" },
        el("div", { role: "row" }, COLUMNS.map((name) => el("span", { role: "columnheader" }, name))),
      ),
      this.rows,
    );
    main.append(
      el("div", { class: "page-head" }, el("div", {}, this.heading, this.summary), this.totals),
      this.chips,
      this.machines,
      this.table,
      this.empty,
      el(
        "details",
        { class: "help legend" },
        el("summary", {}, "What the states mean"),
        el("dl", {}, Object.entries(MEANINGS).map(([level, words]) => el("div", {}, el("dt", {}, badge(level)), el("dd", {}, words)))),
      ),
    );
  }

  close() {}

  update() {
    const { store } = this;
    const volumes = store.volumes();
    const counts = Object.fromEntries([...WORST_FIRST, "stale"].map((level) => [level, 0]));
    for (const one of volumes) counts[shownLevel(one, store)] += 1;
    this.#head(volumes, counts);
    this.#machines();
    const shown = this.level ? volumes.filter((one) => shownLevel(one, store) === this.level) : volumes;
    keyed(this.rows, shown, ({ view }) => view.id, (one) => rowOf(one, store), (row, one) => row.fill(one));
    this.table.hidden = !shown.length;
    this.empty.hidden = shown.length > 0;
    const nothing = store.overview ? "No volume is configured or running on this machine." : "Nothing is known yet.";
    setText(this.empty, volumes.length ? "No volume has this level now." : nothing);
  }

  #head(volumes, counts) {
    const good = counts.good;
    const isAllKnown = !this.store.isStale && !this.#silent().length;
    const words = !volumes.length
      ? ""
      : good === volumes.length && isAllKnown
        ? `All ${volumes.length} are good.`
        : `${good} of ${volumes.length} good${isAllKnown ? "" : ", as far as is known"}.`;
    setText(this.summary, words);
    /* Of primaries: what one sends, its replica on the same page receives. */
    const sources = volumes.filter(({ view }) => view.role !== "secondary");
    const total = (key, unit) => {
      const known = sources.map(({ view }) => view[key]).filter((value) => typeof value === "number");
      const isWhole = known.length === sources.length && !this.#silent().length;
      if (!known.length && !isWhole) return format.UNKNOWN;
      const sum = unit(known.reduce((all, one) => all + one, 0));
      return isWhole ? sum : `${sum} and ${format.UNKNOWN}`;
    };
    const totals = [
      ["Written to disks", total("write_rate_bytes", format.rate)],
      ["Sent", total("wire_rate_bytes", format.rate)],
      ["Out of sync", total("out_of_sync_bytes", format.bytes)],
    ];
    keyed(
      this.totals,
      totals,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (item, [, value]) => setText(item.lastElementChild, value),
    );
    const chips = [...WORST_FIRST, "stale"].filter((level) => counts[level] || level === this.level);
    this.chips.hidden = chips.length < 2 && !this.level;
    keyed(
      this.chips,
      chips,
      (level) => level,
      (level) => this.#chip(level),
      (chip, level) => {
        setText(chip.querySelector("b"), String(counts[level]));
        setAttribute(chip, "aria-pressed", String(this.level === level));
      },
    );
  }

  #chip(level) {
    const choose = () => {
      this.level = this.level === level ? null : level;
      this.update();
    };
    return el("button", { type: "button", class: `chip ${level}`, onclick: choose }, shapeOf(level), el("b"), ` ${LEVEL_WORDS[level]}`);
  }

  /* Machines of whose volumes not all is known. */
  #silent() {
    return (this.store.overview?.machines ?? []).filter((machine) => machine.reachable === false || machine.problem);
  }

  #machines() {
    keyed(
      this.machines,
      this.#silent(),
      (machine) => machine.name,
      (machine) => el("li", { class: "notice" }, shapeOf("unknown"), el("strong", {}, cut(machine.name, 60)), el("span")),
      (item, machine) => {
        const heard = typeof machine.heard_seconds === "number" ? `, last heard ${format.seconds(machine.heard_seconds)} ago` : "";
        const words = machine.reachable === false ? `cannot be reached${heard}` : "answers, with a problem";
        setText(item.lastElementChild, `${words}${machine.problem ? `: ${cut(machine.problem, 300)}` : ""}`);
      },
    );
  }

}

function cell(name, ...content) {
  return el("div", { role: "cell", class: `cell ${name}` }, content);
}

function figure(label) {
  const value = el("b");
  const node = el("p", { class: "figure" }, el("span", { class: "label" }, label), " ", value);
  return { node, value };
}

/* A row keeps its elements, and fills in what changed. */
function rowOf({ view }, store) {
  const parts = Object.fromEntries(
    ["lag", "lagBytes", "out", "sent", "inSync", "verified", "disk", "wire"].map((key) => [key, figure(LABELS[key])]),
  );
  const state = el("div", { role: "cell", class: "cell state" });
  const link = el("a", { href: `#/volume/${view.id}` });
  const whose = el("p", { class: "whose" });
  const words = el("div", { class: "words" });
  const forecast = el("p", { class: "forecast" });
  const progress = progressBar();
  const secondaries = el("ul", { class: "secondaries" });
  const spark = new Spark();
  const log = meter("Log");
  const ring = meter("Ring");
  const row = el(
    "div",
    { role: "row", class: "row" },
    state,
    cell("volume", link, whose),
    cell("standing", words, progress, forecast, secondaries),
    cell("lag", parts.lag.node, parts.lagBytes.node),
    cell("out", parts.out.node, parts.sent.node),
    cell("ages", parts.inSync.node, parts.verified.node),
    cell("rates", parts.disk.node, parts.wire.node, spark.node),
    cell("fill", log, ring),
  );
  row.fill = (one) => {
    const now = store.now;
    const shown = one.view;
    setBadge(state, shownLevel(one, store), shownLevelWords(one, store));
    setAttribute(row, "data-level", shownLevel(one, store));
    setText(link, cut(shown.name ?? shown.device ?? "unknown", 60));
    setText(whose, [shown.role, shown.device !== shown.name ? shown.device : "", shown.machine].filter(Boolean).map((text) => cut(text, 48)).join(" · "));
    setTold(words, shownWords(one, store), 200);
    setText(forecast, forecastWords(shown));
    setProgress(progress, shown);
    secondariesOf(secondaries, shown, one.isStale);
    const isReplica = shown.role === "secondary";
    setFigure(parts.lag.value, format.seconds(shown.lag_seconds), isReplica);
    setFigure(parts.lagBytes.value, format.bytes(shown.lag_bytes), isReplica);
    setFigure(parts.out.value, format.bytes(shown.out_of_sync_bytes), isReplica);
    setFigure(parts.sent.value, format.bytes(shown.unacknowledged_bytes), isReplica);
    setFigure(parts.inSync.value, format.since(shown.last_in_sync, now), isReplica);
    setFigure(parts.verified.value, shown.last_verified ? format.since(shown.last_verified, now) : "none known", isReplica);
    setFigure(parts.disk.value, format.rate(shown.write_rate_bytes), isReplica);
    setFigure(parts.wire.value, format.rate(shown.wire_rate_bytes), isReplica);
    spark.draw(store.traces.get(shown.id) ?? []);
    setMeterLabel(log, shown.role === "secondary" ? "Journal" : "Log");
    ring.hidden = shown.role === "secondary";
    setMeter(log, shown.log);
    setMeter(ring, shown.queue);
  };
  return row;
}

/* Of a replica: its primary knows, and shows it in its own row. */
const ELSEWHERE = "–";
const LABELS = {
  lag: "lag",
  lagBytes: "data behind",
  out: "out of sync",
  sent: "unacknowledged",
  inSync: "in sync",
  verified: "verified",
  disk: "disk",
  wire: "wire",
};

function setFigure(node, words, isElsewhere = false) {
  const told = isElsewhere && words === format.UNKNOWN ? ELSEWHERE : words;
  setText(node, told);
  setAttribute(node, "data-unknown", [format.UNKNOWN, ELSEWHERE, "none known"].includes(told) ? "" : null);
}

function setTold(holder, text, limit) {
  if (holder.dataset.told === text) return;
  holder.dataset.told = text;
  holder.replaceChildren(told(text, limit));
}
