/* The live link: server-sent events read by fetch, so that a heartbeat (a comment) counts as a sign of life as well.
 *
 * EventSource would hide comments, and with them the difference between a quiet server and one that is gone.
 */

/** Cuts a text of server-sent events into its events. Feed it pieces; it gives the events that are complete. */
export class EventCutter {
  #rest = "";

  feed(text) {
    this.#rest += text;
    const found = [];
    let end;
    while ((end = this.#rest.search(/\r?\n\r?\n/)) >= 0) {
      const block = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end).replace(/^\r?\n\r?\n/, "");
      const event = { name: "message", data: [] };
      for (const line of block.split(/\r?\n/)) {
        const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") event.name = value;
        if (field === "data") event.data.push(value);
      }
      if (event.data.length) found.push({ name: event.name, data: event.data.join("\n") });
    }
    return found;
  }
}

export const STALE_AFTER_MS = 2500;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
/* An attempt, or a link, on which nothing comes for this long is given up, and made anew. */
const SILENT_MS = 8000;

/** Keeps a link open. `onoverview(data)` for each overview, `onchange(link)` whenever its standing changes. */
export class Link {
  constructor(onoverview, onchange) {
    this.onoverview = onoverview;
    this.onchange = onchange;
    this.heardAt = null;
    this.startedAt = performance.now();
    this.problem = "";
    this.isOpen = false;
    this.refused = false;
    this.pause = FIRST_PAUSE_MS;
  }

  start() {
    this.#run();
    setInterval(() => this.#look(), 250);
  }

  /** Milliseconds since anything came; by the page's own clock, so that a server that is gone counts too. */
  get silence() {
    return performance.now() - (this.heardAt ?? this.startedAt);
  }

  get isStale() {
    return this.silence > STALE_AFTER_MS || this.heardAt === null;
  }

  #look() {
    const now = performance.now();
    if (this.abort && now - Math.max(this.triedAt, this.heardAt ?? 0) > SILENT_MS) this.abort.abort();
    this.onchange(this);
  }

  #hear() {
    this.heardAt = performance.now();
    this.pause = FIRST_PAUSE_MS;
    this.problem = "";
  }

  async #run() {
    for (;;) {
      try {
        await this.#once();
        this.problem = "the server closed the link";
      } catch (error) {
        if (!this.refused) this.problem = error.name === "AbortError" ? "the server is silent" : "the server does not answer";
      }
      this.isOpen = false;
      this.onchange(this);
      await new Promise((done) => setTimeout(done, this.pause));
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async #once() {
    this.abort = new AbortController();
    this.triedAt = performance.now();
    try {
      const answer = await fetch("api/stream", { signal: this.abort.signal, cache: "no-store" });
      this.refused = answer.status === 401 || answer.status === 403;
      if (this.refused) {
        this.problem = "this page's token is not valid any more: open the link that `controller dashboard` prints";
        throw new Error("refused");
      }
      if (!answer.ok) throw new Error(String(answer.status));
      this.isOpen = true;
      this.#hear();
      const cutter = new EventCutter();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.#hear();
        for (const event of cutter.feed(value)) {
          if (event.name === "overview") this.onoverview(JSON.parse(event.data));
        }
      }
    } finally {
      this.abort = null;
    }
  }
}
