/* One volume: its standing at the top, and below it the view that is open. */

import { cut, el, keyed, setAttribute, setText, told } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { setBadge } from "../lib/levels.js";
import { shownLevel, shownLevelWords, shownWords } from "../lib/store.js";
import { BlockMap } from "./block_map.js";
import { History } from "./history.js";
import { BlockIo } from "./block_io.js";
import { Method } from "./method.js";
import { forecastWords, progressBar, setProgress } from "./parts.js";
import { Summary } from "./summary.js";
import { Writers } from "./writers.js";

const VIEWS = [
  ["summary", "Summary", Summary],
  ["map", "Block map", BlockMap],
  ["writers", "Who writes", Writers],
  ["io", "Block I/O", BlockIo],
  ["method", "The method", Method],
  ["history", "History", History],
];

export class Volume {
  constructor(main, store, id, name) {
    Object.assign(this, { store, id });
    this.heading = el("h1", { tabindex: "-1" });
    this.whose = el("p", { class: "whose" });
    this.mark = el("div", { class: "mark" });
    this.words = el("div", { class: "words" });
    this.forecast = el("p", { class: "forecast" });
    this.progress = progressBar();
    this.problem = el("div", { class: "problem", hidden: true });
    this.figures = el("dl", { class: "figures" });
    this.tabs = el(
      "nav",
      { class: "tabs", "aria-label": "Views of this volume" },
      el("ul", {}, VIEWS.map(([key, words]) => el("li", {}, el("a", { href: `#/volume/${id}/${key}`, "data-name": key }, words)))),
    );
    this.body = el("section", { class: "view", "aria-labelledby": "view-heading" });
    this.gone = el("p", { class: "empty", hidden: true });
    this.standing = el(
      "div",
      { class: "volume-head" },
      el("div", { class: "title" }, this.mark, el("div", {}, this.heading, this.whose)),
      el("div", { class: "standing" }, this.words, this.progress, this.forecast, this.problem),
      this.figures,
    );
    main.append(this.standing, this.tabs, this.body, this.gone);
    this.open(name);
  }

  open(name) {
    const [key, words, Kind] = VIEWS.find(([one]) => one === name) ?? VIEWS[0];
    for (const link of this.tabs.querySelectorAll("a")) setAttribute(link, "aria-current", link.dataset.name === key ? "page" : null);
    if (this.name === key) return;
    this.name = key;
    this.view?.close();
    this.body.dataset.name = key;
    this.view = new Kind(this.body, this.store, this.id, words);
    this.tabs.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  close() {
    this.view?.close();
  }

  update() {
    const one = this.store.volume(this.id);
    this.gone.hidden = Boolean(one);
    for (const part of [this.standing, this.tabs, this.body]) part.hidden = !one;
    if (!one) {
      setText(this.gone, this.store.overview ? "This volume is not known any more: it was removed, or its machine is not watched." : "Nothing is known yet.");
      return;
    }
    const { view } = one;
    setText(this.heading, cut(view.name ?? view.device ?? "unknown", 80));
    setText(this.whose, [view.role, view.device !== view.name ? view.device : "", view.machine].filter(Boolean).map((text) => cut(text, 60)).join(" · "));
    setBadge(this.mark, shownLevel(one, this.store), shownLevelWords(one, this.store));
    setAttribute(this.standing, "data-level", shownLevel(one, this.store));
    fillTold(this.words, shownWords(one, this.store));
    fillTold(this.problem, view.problem && !String(view.words ?? "").includes(view.problem) ? view.problem : "");
    this.problem.hidden = !this.problem.firstChild;
    setText(this.forecast, forecastWords(view));
    setProgress(this.progress, view);
    this.#figures(view);
    this.view.update(one);
  }

  #figures(view) {
    const now = this.store.now;
    const rows = [
      ["Lag", format.seconds(view.lag_seconds)],
      ["Out of sync", format.bytes(view.out_of_sync_bytes)],
      ["Unacknowledged", format.bytes(view.unacknowledged_bytes)],
      ["In sync", format.age(view.last_in_sync, now)],
      ["Verified", view.last_verified ? format.age(view.last_verified, now) : "none known"],
      ["Disk", format.rate(view.write_rate_bytes)],
      ["Wire", format.rate(view.wire_rate_bytes)],
    ];
    keyed(
      this.figures,
      rows,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (item, [, value]) => setText(item.lastElementChild, value),
    );
  }
}

function fillTold(holder, text) {
  if (holder.dataset.told === text) return;
  holder.dataset.told = text;
  holder.replaceChildren(...(text ? [told(text, 240)] : []));
}
