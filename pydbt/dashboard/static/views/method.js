/* The method: where the machine of states stands and why, the log and the lists as the patent draws them, and a time line. */

import { el, setAttribute, setText, told } from "../lib/dom.js";
import { Repeated } from "../lib/asking.js";
import { EventList } from "../lib/event_list.js";
import { drawLists, drawLog, drawMachine } from "../lib/figures.js";
import * as format from "../lib/format.js";
import { methodOf } from "../lib/shapes.js";
import { View } from "./view.js";

const PACE_S = 1;
const EVENTS_KEPT = 200;
const GAP_WORDS = "events are missing here; the next ones are the newest"; /* as of `controller events` */

export class Method extends View {
  constructor(body, ...known) {
    super(body, ...known);
    this.why = el("p", { class: "why" });
    this.parts = Object.fromEntries(["machine", "log", "lists"].map((name) => [name, el("div", { class: "drawing", tabindex: "0", role: "region" })]));
    setAttribute(this.parts.machine, "aria-label", "Machine of states, drawn");
    setAttribute(this.parts.log, "aria-label", "Transaction log, drawn");
    setAttribute(this.parts.lists, "aria-label", "Dirty block map and update lists, drawn");
    this.logWords = el("p", { class: "muted" });
    this.listWords = el("p", { class: "muted" });
    this.rows = el("tbody");
    this.records = el(
      "details",
      { class: "as-table", ontoggle: () => this.#records() },
      el("summary", {}, "The newest records as a table"),
      el(
        "div",
        { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Records of the transaction log, table" },
        el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ["Position", "Kind", "Transaction", "Sequence", "Blocks", ""].map((words) => (words ? el("th", { scope: "col" }, words) : el("td"))))), this.rows),
      ),
    );
    this.events = new EventList();
    body.append(
      this.problem,
      el("div", { class: "panel" }, el("h3", {}, "Where it is, and why"), this.why, this.parts.machine),
      el(
        "div",
        { class: "pair drawings" },
        el("div", { class: "panel" }, el("h3", {}, "Transaction log"), this.logWords, this.parts.log, this.records),
        el("div", { class: "panel" }, el("h3", {}, "Dirty block map and update lists"), this.listWords, this.parts.lists),
      ),
      el("div", { class: "panel" }, el("h3", {}, "Events"), this.events.node),
    );
    this.kept = [];
    this.asking = new Repeated(() => `api/volumes/${this.id}/method`, PACE_S, (answer) => this.#draw(answer), (words) => this.problemIs(words));
    this.since = 0;
    this.eventsAsking = new Repeated(
      () => `api/volumes/${this.id}/events?since=${this.since}`,
      PACE_S,
      (answer) => this.#heard(answer),
      () => {},
    );
  }

  close() {
    this.asking.stop();
    this.eventsAsking.stop();
  }

  #draw(answer) {
    this.problemIs("");
    const method = methodOf(answer);
    this.method = method;
    const key = JSON.stringify([method.mode, method.phase, method.why, method.waitingFor, method.secondary]);
    if (this.shown !== key) {
      this.shown = key;
      const since = method.since ? `, since ${format.clock(method.since)}` : "";
      this.why.replaceChildren(
        el("strong", {}, told(method.mode ?? format.UNKNOWN, 60)),
        ...(method.phase && method.phase !== "idle" ? [", phase ", el("strong", {}, told(method.phase, 60))] : []),
        since,
        ...(method.why ? [": ", told(method.why, 300)] : []),
        ...(method.waitingFor ? ["; waiting for ", told(method.waitingFor, 200)] : []),
        ...(method.secondaries.length > 1 ? [". This is the secondary in the worst mode: ", told(method.secondary, 100)] : []),
      );
      this.parts.machine.replaceChildren(drawMachine(method));
    }
    setText(this.logWords, logWords(method.log));
    setText(this.listWords, listWords(method));
    this.parts.log.replaceChildren(drawLog(method.log));
    this.parts.lists.replaceChildren(drawLists(method));
    this.#records();
  }

  #records() {
    if (!this.records.open || !this.method) return;
    const cells = (record) => [
      format.count(record.position),
      record.kind,
      record.name ? told(record.name, 60) : record.transaction === null ? "" : format.count(record.transaction),
      record.isDone || record.sequence === null ? "" : format.count(record.sequence),
      record.isDone ? "" : blocksWords(record),
      record.isDone ? "" : record.active ? "active" : "completed",
    ];
    const rows = [...this.method.log.records].reverse();
    this.rows.replaceChildren(...rows.map((record) => el("tr", {}, cells(record).map((words, index) => (index ? el("td", {}, words) : el("th", { scope: "row" }, words))))));
  }

  #heard(answer) {
    const isNew = this.run !== undefined && answer.run !== this.run;
    this.run = answer.run;
    if (isNew && this.since) {
      this.begunAnew = true;
      this.since = 0; /* a controller that was started again counts from the beginning; what was heard before stays */
      this.eventsAsking.again();
      return;
    }
    if (typeof answer.next === "number") this.since = answer.next;
    const events = answer.events ?? [];
    const last = this.kept.at(-1);
    const isLost = answer.lost === true || (this.begunAnew && last && last.name !== "stopped");
    this.begunAnew = false;
    const gap = isLost ? [{ name: "gap", words: GAP_WORDS, moment: events[0]?.moment ?? last?.moment, number: (events[0]?.number ?? 0) - 0.5 }] : [];
    this.kept = [...this.kept, ...gap, ...events].slice(-EVENTS_KEPT);
    this.events.draw(this.kept);
  }
}

function blocksWords(record) {
  const last = record.first + record.count - 1;
  return record.count > 1 ? `${format.count(record.first)}–${format.count(last)}` : format.count(record.first);
}

function logWords(log) {
  if (log.active === null) return "Not known.";
  const fill = log.capacity ? `, ${format.percent(log.used / log.capacity)} full` : "";
  return `${format.count(log.active)} open updates${fill}. A record stands here from the write until the secondary has acknowledged it; then DONE is written. A transaction of the file system is DONE when its commit has completed as well.`;
}

function listWords(method) {
  if (method.dirtyBlocks === null) return "Not known.";
  const sweep = method.sweepBlocks ? ` ${format.count(method.sweepBlocks)} blocks are to be swept.` : "";
  return (
    `${format.count(method.dirtyBlocks)} blocks are dirty; ${format.count(method.updates)} updates wait for their acknowledgement. ` +
    `A bit is cleared when the list of its block is empty.${sweep}`
  );
}
