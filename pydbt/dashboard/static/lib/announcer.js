/* Says a change of a volume's level to a screen reader: one sentence for all that changed, at most every few seconds. */

import { cut, setText } from "./dom.js";
import { LEVEL_WORDS } from "./levels.js";
import { shownLevel } from "./store.js";

const PAUSE_MS = 4000;
const NAMED = 3;

export class Announcer {
  constructor(place, store) {
    Object.assign(this, { place, store });
    this.levels = new Map();
    this.waiting = new Map();
    this.timer = null;
  }

  look() {
    for (const one of this.store.volumes()) {
      const level = shownLevel(one, this.store);
      const before = this.levels.get(one.view.id);
      if (before && before !== level) this.waiting.set(one.view.id, `${cut(one.view.name, 40)}: ${LEVEL_WORDS[level]}`);
      this.levels.set(one.view.id, level);
    }
    if (this.waiting.size && !this.timer) this.timer = setTimeout(() => this.#say(), PAUSE_MS / 4);
  }

  link(state) {
    setText(this.place, state === "live" ? "Live again" : "");
  }

  #say() {
    const words = [...this.waiting.values()];
    const rest = words.length - NAMED;
    setText(this.place, words.slice(0, NAMED).join("; ") + (rest > 0 ? `; and ${rest} more changed` : ""));
    this.waiting.clear();
    this.timer = setTimeout(() => {
      this.timer = null;
      this.look();
    }, PAUSE_MS);
  }
}
