/* Drawings in the manner of the patent's figures: lines, boxes, and the numbers of its parts (US 7,039,661, Fig. 2 and Fig. 3). */

import { svg } from "./dom.js";
import * as format from "./format.js";

const text = (x, y, words, properties) => svg("text", { x, y, ...properties }, String(words));
const box = (x, y, width, height, properties) => svg("rect", { x, y, width, height, ...properties });
const line = (d, properties) => svg("path", { d, class: "stroke", ...properties });

function drawing(width, height, label, ...content) {
  const size = width > 700 ? "large" : "small";
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, svg("path", { d: "M0 0L10 5L0 10z", class: "solid" }));
  return svg("svg", { class: `figure-drawing ${size}`, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, svg("defs", {}, arrow), ...content);
}

/* --- the machine of states --- */

const MODES = {
  "initial-sync": { x: 200, y: 20, words: ["initial-sync", "the first copy"] },
  unsynchronized: { x: 20, y: 110, words: ["unsynchronized", "Fig. 6: writes are only tracked"] },
  resynchronizing: { x: 310, y: 110, words: ["resynchronizing", "step 682: what differs is copied"] },
  normal: { x: 600, y: 60, words: ["normal", "Fig. 4: writes are streamed"] },
  epochs: { x: 600, y: 130, words: ["epochs", "image after image"] },
  paused: { x: 20, y: 222, words: ["paused", "by the operator"], small: true },
  refused: { x: 190, y: 222, words: ["refused", "by the secondary"], small: true },
  removed: { x: 360, y: 222, words: ["removed", "this secondary"], small: true },
  stopped: { x: 530, y: 222, words: ["stopped", "the controller"], small: true },
};
const PHASES = ["sweeping", "arming", "settling", "last-sweep", "draining", "committing"];
const HELD_PHASES = ["sweeping", "holding", "settling", "last-sweep", "releasing", "draining", "committing"];
const WIDTH = 230;
const SMALL = 150;

export function drawMachine(method) {
  const content = [
    line("M135 110V44H195", { "marker-end": "url(#arrow)" }),
    line("M250 135H305", { "marker-end": "url(#arrow)" }),
    line("M430 44H560V80H595", { "marker-end": "url(#arrow)" }),
    line("M540 125H568V95H595", { "marker-end": "url(#arrow)" }),
    line("M540 150H568V158H595", { "marker-end": "url(#arrow)" }),
    line("M830 88H850V203H210V168", { "marker-end": "url(#arrow)", "stroke-dasharray": "5 3" }),
    line("M95 165V217", { "marker-end": "url(#arrow)", "marker-start": "url(#arrow)" }),
    text(400, 197, "the secondary is lost, or the log is full", { class: "note", "text-anchor": "middle" }),
  ];
  for (const [name, place] of Object.entries(MODES)) content.push(mode(name, place, method.mode === name));
  const phase = method.phase && method.phase !== "idle" ? method.phase : null;
  const phases = phase && HELD_PHASES.includes(phase) && !PHASES.includes(phase) ? HELD_PHASES : PHASES;
  const width = 850 / phases.length;
  content.push(text(20, 298, phase ? "Phases of the resynchronization" : "Phases of a resynchronization: none is under way", { class: "note" }));
  phases.forEach((name, index) => {
    const x = 20 + index * width;
    const isHere = name === phase;
    content.push(
      svg("path", { d: `M${x} 310h${width - 14}l10 15-10 15H${x}l10-15z`, class: isHere ? "here" : "stroke" }),
      text(x + width / 2 + 2, 330, name, { class: isHere ? "here-words" : "words", "text-anchor": "middle" }),
    );
  });
  const label = `Machine of states. It is in mode ${method.mode ?? "unknown"}${phase ? `, phase ${phase}` : ""}.`;
  return drawing(890, 352, label, ...content);
}

function mode(name, { x, y, words, small }, isHere) {
  const width = small ? SMALL : WIDTH;
  const height = small ? 44 : 55;
  const parts = [
    box(x, y, width, height, { rx: 6, class: isHere ? "here" : "box" }),
    text(x + width / 2, y + (small ? 19 : 23), words[0], { class: isHere ? "here-words" : "words", "text-anchor": "middle" }),
    text(x + width / 2, y + (small ? 35 : 42), words[1], { class: isHere ? "here-note" : "note", "text-anchor": "middle" }),
  ];
  if (isHere) parts.push(svg("path", { d: `M${x - 4} ${y - 6}h20l-10 13z`, class: "solid" }));
  return svg("g", {}, ...parts);
}

/* --- Fig. 2: the transaction log --- */

const ROWS = 14;
const ROW = 26;

export function drawLog(log) {
  const records = log.records;
  const head = Math.min(records.length, ROWS);
  const older = log.more > 0 ? [{ gap: `… ${format.count(log.more)} older records …` }] : [];
  const between = { gap: `… ${format.count(records.length - ROWS)} more …` };
  const shown = [...older, ...(records.length > ROWS ? [...records.slice(0, ROWS / 2), between, ...records.slice(-ROWS / 2)] : records)];
  const left = 150;
  const width = 390;
  const top = 40;
  const content = [text(left, 18, "file system transaction log", { class: "title" }), numeral(left + width + 40, 14, 210, left + width - 4, 36)];
  let y = top;
  shown.forEach((record) => {
    if (record.gap) {
      content.push(box(left, y, width, ROW, { class: "box gap" }), text(left + width / 2, y + 17, record.gap, { class: "note", "text-anchor": "middle" }));
    } else {
      content.push(box(left, y, width, ROW, { class: record.active ? "box active" : "box" }), text(left + 12, y + 17, recordWords(record), { class: record.active ? "words" : "note" }));
      if (!record.isDone) content.push(text(left + width + 12, y + 17, record.active ? "active" : "completed", { class: "note" }));
    }
    y += ROW;
  });
  const end = y;
  const free = log.capacity ? `free space: ${format.count(log.capacity - log.used)} of ${format.count(log.capacity)} slots` : "free space";
  content.push(box(left, end, width, 44, { class: "box free" }), text(left + width / 2, end + 27, free, { class: "note", "text-anchor": "middle" }), numeral(left + width + 40, end + 34, 240, left + width, end + 24));
  content.push(line(`M${left + width + 62} ${end + 44}v10H${left - 14}V${top - 8}h8`, { "stroke-dasharray": "4 3", "marker-end": "url(#arrow)" }));
  content.push(...pointer(left, head ? top + ROW / 2 : end + 8, "start of log", 220, log.start), ...pointer(left, head ? end + 10 : end + 42, "end of log", 230, log.end));
  const label = `Transaction log: ${records.length} newest records are known, ${log.active ?? "an unknown number of"} transactions are active.`;
  return drawing(660, end + 66, label, ...content);
}

function pointer(left, y, words, number, position) {
  return [
    line(`M${left - 34} ${y}H${left - 3}`, { "marker-end": "url(#arrow)" }),
    text(left - 38, y - 2, words, { class: "words", "text-anchor": "end" }),
    text(left - 38, y + 12, `${number}${position === null ? "" : ` at ${format.count(position)}`}`, { class: "note", "text-anchor": "end" }),
  ];
}

function numeral(x, y, number, toX, toY) {
  return svg("g", {}, line(`M${x - 4} ${y}Q${(x + toX) / 2} ${y - 4} ${toX} ${toY}`), text(x, y + 4, number, { class: "numeral" }));
}

function recordWords(record) {
  if (record.isDone) return record.count > 1 ? `DONE with transactions ${format.count(record.transaction)}–${format.count(record.transaction + record.count - 1)}` : `DONE with transaction ${format.count(record.transaction)}`;
  const blocks = record.count > 1 ? `blocks ${format.count(record.first)}–${format.count(record.first + record.count - 1)}` : `block ${format.count(record.first)}`;
  if (record.name) return `${record.name.slice(0, 40)}: ${blocks}`;
  return `transaction ${record.transaction === null ? "?" : format.count(record.transaction)}: ${blocks}`;
}

/* --- Fig. 3: dirty block map and update lists --- */

const COLUMNS = 5;
const ENTRIES = 4;

export function drawLists(method) {
  const shown = method.lists.slice(0, COLUMNS);
  const width = 122;
  const left = 4;
  const content = [text(left, 18, "dirty block map", { class: "title" }), numeral(left + COLUMNS * width + 12, 44, 310, left + COLUMNS * width, 54)];
  for (let column = 0; column < COLUMNS; column += 1) {
    const list = shown[column];
    const x = left + column * width;
    content.push(box(x, 40, width, 30, { class: list ? "box active" : "box" }), text(x + width / 2, 60, list ? "1" : "0", { class: list ? "words" : "note", "text-anchor": "middle" }));
    content.push(text(x + width / 2, 34, list ? `${list.count > 1 ? `${format.count(list.count)} from` : "block"} ${format.count(list.block)}` : "…", { class: "note", "text-anchor": "middle" }));
    if (list) content.push(...entries(list, x, width, column + 1));
  }
  const lowest = 96 + Math.max(1, ...shown.map((list) => Math.min(list.sequences.length + (list.more ? 1 : 0), ENTRIES + 1))) * 36;
  content.push(text(left, lowest + 24, "storage area", { class: "title" }), numeral(left + COLUMNS * width + 12, lowest + 34, "140A", left + COLUMNS * width, lowest + 44));
  for (let column = 0; column < COLUMNS; column += 1) {
    const list = shown[column];
    const x = left + column * width;
    content.push(box(x, lowest + 34, width, 28, { class: "box" }), text(x + width / 2, lowest + 53, list ? `d${list.sequences.length + (list.more ?? 0)}` : "…", { class: "note", "text-anchor": "middle" }));
  }
  const words = shown.map((list) => `block ${list.block} has ${list.sequences.length + (list.more ?? 0)} updates that wait`).join("; ");
  const label = method.dirtyBlocks === null ? "Dirty block map: not known." : `Dirty block map: ${method.dirtyBlocks} blocks are dirty. ${words || "No update waits"}.`;
  if (!shown.length) content.push(text(left, 92, "No update waits for its acknowledgement.", { class: "note" }));
  return drawing(660, lowest + 72, label, ...content);
}

function entries(list, x, width, number) {
  const content = [line(`M${x + width / 2} 70V92`, { "marker-end": "url(#arrow)" }), text(x + width / 2 + 6, 86, `320-${number}`, { class: "numeral" })];
  list.sequences.slice(0, ENTRIES).forEach((sequence, index) => {
    const y = 94 + index * 36;
    content.push(
      box(x + 6, y, width - 12, 30, { class: "box" }),
      text(x + 12, y + 13, `seq ${format.count(sequence)}`, { class: "words small" }),
      text(x + 12, y + 25, `loc ${format.count(list.block)}`, { class: "note small" }),
    );
    if (index) content.push(line(`M${x + width / 2} ${y - 6}V${y}`));
  });
  const more = Math.max(list.sequences.length - ENTRIES, 0) + (list.more ?? 0);
  if (more > 0) content.push(text(x + width / 2, 94 + Math.min(list.sequences.length, ENTRIES) * 36 + 14, `${more} more`, { class: "note", "text-anchor": "middle" }));
  return content;
}
