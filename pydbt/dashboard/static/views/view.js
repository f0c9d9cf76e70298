/* What all views of a volume have in common: their heading, what a question got for an answer, and whether they show the past. */

import { el, setAttribute, setText } from "../lib/dom.js";
import { badge } from "../lib/levels.js";

export class View {
  constructor(body, store, id, words) {
    Object.assign(this, { body, store, id });
    this.isStale = true; /* until something is known of the volume */
    this.problem = el("p", { class: "notice", role: "status", hidden: true }); /* each view has a place for it */
    this.past = badge("stale");
    body.replaceChildren(el("div", { class: "view-head" }, el("h2", { id: "view-heading", tabindex: "-1", "data-view-heading": true }, words), this.past));
    this.#look();
  }

  /** What is known of the volume, at each overview and at least once per second. */
  update(one) {
    this.isStale = one.isStale;
    this.renew(one);
    this.#look();
  }

  /** For a view that draws what the overview tells. */
  renew() {}

  /** Why there is no answer, or none with figures; empty when there is one. */
  problemIs(words) {
    this.problem.hidden = !words;
    setText(this.problem, words);
    this.#look();
  }

  close() {}

  /*
   * Decided here, for every view: it shows the past while its volume is stale, or while nobody answers what was asked for it. The
   * style sheet gives all of its panels the look of that.
   */
  #look() {
    this.past.hidden = !this.isStale;
    setAttribute(this.body, "data-stale", this.isStale || !this.problem.hidden ? "" : null);
  }
}
