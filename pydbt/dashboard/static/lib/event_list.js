/* Events as a time line: the newest at the top, each with its moment, its name and its words. */

import { el, printable, setText, told } from "./dom.js";
import * as format from "./format.js";
import { shapeOf } from "./levels.js";

const BAD = new Set(["out-of-sync", "tainted", "split-brain", "refused", "disk-error", "standing-still", "log-full", "problem", "identity-ending", "flapping", "mark-lost"]);
const WORSE = new Set(["disconnected", "stopped", "restart", "paused", "gap"]);
const GOOD = new Set(["in-sync", "connected", "taint-answered", "verified", "accepted", "disk-recovered", "moving-again", "problem-ended", "identity-renewed"]);
const MOST = 300;

export class EventList {
  constructor() {
    this.list = el("ol", { class: "events" });
    this.none = el("p", { class: "muted" }, "None.");
    this.more = el("p", { class: "muted", hidden: true });
    const region = { class: "scrolled tall", tabindex: "0", role: "region", "aria-label": "Events, the newest first" };
    this.node = el("div", region, this.none, this.list, this.more);
    this.key = "";
  }

  gravityOf(event) {
    if (BAD.has(event.name)) return "bad";
    if (WORSE.has(event.name)) return "stopped";
    return GOOD.has(event.name) ? "good" : "other";
  }

  draw(events) {
    const key = events.map((event) => `${event.number}${event.moment}${event.name}`).join("|");
    if (key === this.key) return;
    this.key = key;
    const newest = [...events].sort((a, b) => (format.moment(b.moment) ?? 0) - (format.moment(a.moment) ?? 0) || (b.number ?? 0) - (a.number ?? 0));
    this.none.hidden = newest.length > 0;
    this.more.hidden = newest.length <= MOST;
    setText(this.more, `${newest.length - MOST} older ones are left out here: take a shorter span.`);
    let day = "";
    const items = [];
    for (const event of newest.slice(0, MOST)) {
      const moment = format.clock(event.moment);
      if (moment.slice(0, 10) !== day) {
        day = moment.slice(0, 10);
        items.push(el("li", { class: "day" }, day));
      }
      items.push(this.#item(event, moment.slice(11) || moment));
    }
    this.list.replaceChildren(...items);
  }

  #item(event, time) {
    const gravity = this.gravityOf(event);
    const mark = gravity === "other" ? el("span", { class: "mark-plain" }) : shapeOf(gravity);
    const figures = Object.entries(event.figures ?? {}).map(([name, value]) => `${nameWords(name)} ${figureWords(name, value)}`);
    return el(
      "li",
      { class: gravity },
      el("time", {}, time),
      mark,
      el("div", {}, el("strong", {}, printable(event.name ?? "")), " ", told(event.words ?? "", 200), figures.length ? el("span", { class: "muted" }, " ", told(figures.join(", "), 120)) : null),
    );
  }
}

/* The page's own spaces that do not break would be told as escapes, as those in texts of others are. */
const plain = (words) => words.replaceAll("\u00a0", " ");

/* out_of_sync_bytes: "out of sync"; the unit stands behind the value. */
function nameWords(name) {
  return printable(name).replace(/_(bytes|seconds|s)$/, "").replaceAll("_", " ");
}

function figureWords(name, value) {
  if (value === null || value === undefined) return format.UNKNOWN;
  if (typeof value === "number" && /(^|_)bytes$/.test(name)) return plain(format.bytes(value));
  if (typeof value === "number" && /_(s|seconds)$/.test(name)) return plain(format.seconds(value));
  return String(value);
}
