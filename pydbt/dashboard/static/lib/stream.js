/* The live link: server-sent events read by fetch, so that a heartbeat (a comment) counts as a sign of life as well: once an overview
 * has come on that link, and as long as overviews go on coming. Bytes alone say nothing: a proxy sends some too.
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
/* The server tells an overview anew after at most five seconds, and looks whether it is time once a second. */
export const OLD_AFTER_MS = 8000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
/* An attempt, or a link, on which no overview comes for this long is given up, and made anew. */
const GIVEN_UP_AFTER_MS = 10000;
const STREAM = "text/event-stream";

/* An answer that is not what it must be. Its message is for people. */
class Unusable extends Error {}

/** Keeps a link open. `onoverview(data)` for each overview, `onchange(link)` whenever its standing changes. */
export class Link {
  constructor(onoverview, onchange) {
    this.onoverview = onoverview;
    this.onchange = onchange;
    this.heardAt = null;
    this.overviewAt = null;
    this.startedAt = performance.now();
    this.problem = "";
    this.isOpen = false;
    this.pause = FIRST_PAUSE_MS;
  }

  start() {
    this.#run();
    setInterval(() => this.#look(), 250);
  }

  /** Milliseconds for which nothing has vouched for the overview; by the page's own clock, so that a server that is gone counts too. */
  get silence() {
    const now = performance.now();
    const age = now - (this.overviewAt ?? this.startedAt);
    return age > OLD_AFTER_MS ? age : now - (this.heardAt ?? this.startedAt);
  }

  get isStale() {
    return this.silence > STALE_AFTER_MS || this.overviewAt === null;
  }

  #look() {
    if (this.abort && performance.now() - Math.max(this.triedAt, this.overviewAt ?? 0) > GIVEN_UP_AFTER_MS) this.abort.abort();
    this.onchange(this);
  }

  /* One that cannot be drawn was not taken either. */
  #take(text) {
    const { heardAt, overviewAt } = this;
    try {
      const overview = JSON.parse(text);
      if (!Number.isFinite(overview?.now) || !Array.isArray(overview.machines)) throw new Unusable("no overview");
      this.heardAt = this.overviewAt = performance.now();
      this.onoverview(overview);
    } catch {
      Object.assign(this, { heardAt, overviewAt });
      throw new Unusable("what the server sends cannot be read");
    }
    this.pause = FIRST_PAUSE_MS;
    this.problem = "";
  }

  async #run() {
    for (;;) {
      try {
        await this.#once();
        this.problem = "the server closed the link";
      } catch (error) {
        if (error instanceof Unusable) this.problem = error.message;
        else this.problem = error.name === "AbortError" ? "the server is silent" : "the server does not answer";
      }
      this.isOpen = false;
      this.onchange(this);
      await new Promise((done) => setTimeout(done, this.pause));
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async #once() {
    const abort = new AbortController();
    this.abort = abort;
    this.triedAt = performance.now();
    let isTaken = false;
    try {
      const answer = await fetch("api/stream", { signal: abort.signal, cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) {
        throw new Unusable("this page's token is not valid any more: open the link that `controller dashboard` prints");
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const kind = (answer.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
      if (kind !== STREAM) throw new Unusable("the answer is not the dashboard's: perhaps a proxy's, which wants a log-in");
      this.isOpen = true;
      const cutter = new EventCutter();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        if (isTaken) this.heardAt = performance.now();
        for (const event of cutter.feed(value)) {
          if (event.name !== "overview") continue;
          this.#take(event.data);
          isTaken = true;
        }
      }
    } finally {
      this.abort = null;
      abort.abort(); /* of what is not read to its end the browser would keep the connection */
    }
  }
}
