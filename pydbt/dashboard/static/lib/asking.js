/* Answers of the server, asked again and again while a view is open: never two at once, none once the view is closed, and none
 * while nobody sees the page, so that a forgotten tab keeps no observing program attached. */

import { printable } from "./dom.js";

/** One answer. An Error with the server's sentence when there is none. */
export async function ask(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { signal, cache: "no-store", headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  let content = null;
  try {
    content = await answer.json();
  } catch {
    /* a page in the place of JSON: the status tells enough */
  }
  if (!answer.ok) {
    throw new Error(printable(content?.problem ?? `The server has no answer for this (HTTP status ${answer.status}).`));
  }
  return content;
}

export class Repeated {
  /** `path()` is asked every `seconds`; null leaves a turn out. */
  constructor(path, seconds, onanswer, onproblem) {
    Object.assign(this, { path, seconds, onanswer, onproblem });
    this.stopped = false;
    this.timer = null;
    this.turn = 0;
    this.seen = () => document.hidden || this.again();
    document.addEventListener("visibilitychange", this.seen);
    this.#go();
  }

  /** At once, in the place of the question that is under way. */
  again() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.#go();
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.seen);
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  async #go() {
    if (this.stopped) return;
    const turn = ++this.turn;
    const path = this.path();
    if (path !== null && !document.hidden) {
      this.abort = new AbortController();
      try {
        const answer = await ask(path, this.abort.signal);
        if (turn === this.turn && !this.stopped) this.onanswer(answer);
      } catch (error) {
        if (turn === this.turn && !this.stopped && error.name !== "AbortError") this.onproblem(error.message);
      }
    }
    if (turn !== this.turn || this.stopped) return;
    this.timer = setTimeout(() => this.#go(), this.seconds * 1000);
  }
}
