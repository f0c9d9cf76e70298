/* A recording of `controller trace --record`, played again in the browser: it is read here and sent nowhere. */

import { el, keyed, setAttribute, setText, told } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { INTERVALS_MAX, readRecording } from "../lib/recording.js";
import { IoFigures } from "./block_io.js";

const SPEEDS = [1, 10, 60];
const FRAME_MS = 250;

export class Replay {
  constructor(main) {
    this.heading = el("h1", { tabindex: "-1" }, "A recording");
    this.file = el("input", { type: "file", id: "recording-file", onchange: () => this.#open(this.file.files[0]) });
    this.problem = el("p", { class: "notice", role: "status", hidden: true });
    this.reading = el("progress", { max: "1", "aria-label": "Reading the recording", hidden: true });
    this.body = el("section", { class: "view", hidden: true });
    this.title = el("h2", { tabindex: "-1" }, "I/Os by the second");
    main.append(
      this.heading,
      el(
        "div",
        { class: "panel open-recording" },
        el("p", {}, el("label", { for: "recording-file" }, "A file of ", el("code", {}, "controller trace DEVICE --record FILE"), ":")),
        this.file,
        el("p", { class: "muted" }, "It is read in this browser, and sent nowhere."),
        this.reading,
      ),
      this.problem,
      this.body,
    );
    this.drop = (event) => {
      event.preventDefault();
      if (event.type === "drop" && event.dataTransfer.files[0]) this.#open(event.dataTransfer.files[0]);
    };
    for (const name of ["dragover", "drop"]) document.addEventListener(name, this.drop);
  }

  close() {
    for (const name of ["dragover", "drop"]) document.removeEventListener(name, this.drop);
    clearInterval(this.timer);
    this.figures?.close();
    this.closed = true;
  }

  update() {}

  #problem(words) {
    this.problem.hidden = !words;
    setText(this.problem, words);
  }

  async #open(file) {
    if (!file) return;
    this.#problem("");
    this.reading.hidden = false;
    try {
      const recording = await readRecording(file, (part) => setAttribute(this.reading, "value", part.toFixed(3)));
      if (this.closed) return;
      this.#show(recording);
    } catch (error) {
      this.#problem(error.message);
    } finally {
      this.reading.hidden = true;
    }
  }

  #show(recording) {
    clearInterval(this.timer);
    this.figures?.close();
    this.recording = recording;
    const last = Math.max(recording.intervals.length - 1, 0);
    this.place = last;
    this.slider = el("input", { type: "range", min: 0, max: last, value: last, "aria-label": "Second of the recording", oninput: () => this.#go(Number(this.slider.value)) });
    this.where = el("p", { class: "where" });
    this.play = el("button", { type: "button", class: "tool", onclick: () => this.#run(0) }, "Stop");
    const speeds = SPEEDS.map((speed) => el("button", { type: "button", class: "tool", onclick: () => this.#run(speed), "data-speed": speed }, `Play ${speed} ×`));
    this.speeds = speeds;
    this.processes = el("tbody");
    this.files = el("tbody");
    const facts = [
      ["Device", told(recording.begin.device, 100)],
      ["I/Os", format.count(recording.count)],
      ["Lost by the tracer", recording.lost === null ? format.UNKNOWN : format.count(recording.lost)],
      ["Seconds", format.count(recording.intervals.length)],
    ];
    const table = (title, head, rows) =>
      el("div", { class: "panel" }, el("h3", {}, title), el("table", { class: "plain" }, el("thead", {}, el("tr", {}, [head, "I/Os", "Data"].map((words, index) => el("th", { scope: "col", class: index ? "number" : null }, words)))), rows));
    const figures = el("div", { class: "view" });
    this.body.replaceChildren(
      this.title,
      el("div", { class: "panel" }, el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))), el("div", { class: "map-bar" }, el("div", { class: "tools", role: "group", "aria-label": "Playing" }, speeds, this.play), this.where), this.slider),
      figures,
      el("div", { class: "pair" }, table("Processes of this minute", "Process", this.processes), table("Files of this minute", "File", this.files)),
    );
    this.body.hidden = false;
    this.figures = new IoFigures(figures);
    const leftOut = recording.leftOut ? `${format.count(recording.leftOut)} I/Os after the first ${format.seconds(INTERVALS_MAX)} are left out. ` : "";
    this.#problem(`${leftOut}${recording.problem}`);
    this.#run(0);
    this.#go(last);
  }

  #run(speed) {
    clearInterval(this.timer);
    for (const button of this.speeds) setAttribute(button, "aria-pressed", String(Number(button.dataset.speed) === speed));
    this.play.disabled = !speed;
    if (!speed) return;
    if (this.place >= this.recording.intervals.length - 1) this.place = 0;
    this.timer = setInterval(() => {
      this.place = Math.min(this.place + (speed * FRAME_MS) / 1000, this.recording.intervals.length - 1);
      this.#go(Math.floor(this.place), false);
      if (this.place >= this.recording.intervals.length - 1) this.#run(0);
    }, FRAME_MS);
  }

  #go(index, byHand = true) {
    if (byHand) this.place = index;
    if (!this.recording.intervals.length) {
      this.#problem(`${this.recording.problem} The recording has no I/O.`.trim());
      return;
    }
    const moment = format.clock(this.recording.momentOf(index));
    this.slider.value = index;
    setAttribute(this.slider, "aria-valuetext", moment);
    setText(this.where, `${moment}, second ${format.count(index + 1)} of ${format.count(this.recording.intervals.length)}`);
    const answer = this.recording.answerAt(index);
    this.figures.draw(answer);
    fill(this.processes, answer.processes);
    fill(this.files, answer.files);
  }
}

function fill(body, rows) {
  keyed(
    body,
    rows,
    (one) => one.name,
    (one) => el("tr", {}, el("th", { scope: "row" }, told(one.name, 90)), el("td", { class: "number" }), el("td", { class: "number" })),
    (row, one) => {
      setText(row.children[1], format.count(one.count));
      setText(row.children[2], format.bytes(one.bytes));
    },
  );
}
