/* A recording of `controller trace --record`, read in the browser: docs/reference/format.md has its layout. Nothing is sent anywhere. */

import { decompress } from "../vendor/fzstd/fzstd.js";
import { printable } from "./dom.js";

const MAGIC = "PYDBTIO\n";
const HEAD_BYTES = 16;
const CONTENT_BYTES_MAX = 1 << 22;
const RECORD_BYTES = 88;
const OPERATIONS = ["read", "write", "flush", "discard"];
const FAILED = 1;
const SEQUENTIAL = 2;
const UNKNOWN_NS = 0xffffffffffffffffn;
/* Buckets as pydbt/core/seen/latency.py has them: eight for each power of two of nanoseconds, from 256 ns on. */
const BUCKETS = 256;
const FIRST_POWER = 8;
const PARTS = 8;
const SECTOR_BYTES = 512;
const CELLS = 64;
/* Intervals are a second; what is beyond these is left out, so that no file takes more memory than a browser has. */
export const INTERVALS_MAX = 7200;
const WINDOW = 60;
const TOP = 12;
const SUBJECTS_MAX = 4096;

export class BadRecording extends Error {}

/** Reads all of a file, some blocks at a time. `onprogress(part)` from 0 to 1. What is before a damaged place is kept. */
export async function readRecording(file, onprogress) {
  const recording = new Recording();
  const magic = await file.slice(0, MAGIC.length).text();
  if (magic !== MAGIC) throw new BadRecording("This is no recording of controller trace --record.");
  let at = MAGIC.length;
  try {
    while (!recording.ended) {
      if (at + HEAD_BYTES > file.size) throw new BadRecording("The recording was cut off: its end is missing.");
      const head = new DataView(await file.slice(at, at + HEAD_BYTES).arrayBuffer());
      const kind = String.fromCharCode(...new Uint8Array(head.buffer, 0, 4));
      const [content, packed, checksum] = [head.getUint32(4, true), head.getUint32(8, true), head.getUint32(12, true)];
      if (Math.max(content, packed) > CONTENT_BYTES_MAX) throw new BadRecording("A block is larger than a block may be.");
      const bytes = new Uint8Array(await file.slice(at + HEAD_BYTES, at + HEAD_BYTES + packed).arrayBuffer());
      if (bytes.length < packed) throw new BadRecording("The recording was cut off in the middle of a block.");
      if (crc32(bytes) !== checksum) throw new BadRecording("A block is damaged: its checksum is wrong.");
      recording.take(kind, unpacked(bytes, content));
      at += HEAD_BYTES + packed;
      onprogress(at / file.size);
    }
  } catch (error) {
    recording.problem = error instanceof BadRecording ? error.message : "A block is damaged: it cannot be read.";
  }
  if (!recording.begin) throw new BadRecording(recording.problem || "The recording does not begin as one does.");
  return recording;
}

function unpacked(bytes, size) {
  const content = decompress(bytes, new Uint8Array(size));
  if (content.length !== size) throw new BadRecording("A block is damaged: its size is wrong.");
  return content;
}

let table = null;

function crc32(bytes) {
  table ??= Uint32Array.from({ length: 256 }, (_, value) => {
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value >>> 0;
  });
  let crc = 0xffffffff;
  for (const byte of bytes) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function bucketOf(ns) {
  if (ns < 2 ** FIRST_POWER) return 0;
  const power = Math.floor(Math.log2(ns));
  return Math.min(1 + (power - FIRST_POWER) * PARTS + Math.floor((ns / 2 ** power - 1) * PARTS), BUCKETS - 1);
}

/** The lower edge of a bucket, in nanoseconds. */
function edgeOf(bucket) {
  if (bucket === 0) return 0;
  const power = FIRST_POWER + Math.floor((bucket - 1) / PARTS);
  return 2 ** power * (1 + ((bucket - 1) % PARTS) / PARTS);
}

const EDGES_NS = [0, ...Array.from({ length: 31 }, (_, index) => 2 ** (FIRST_POWER + index))];

function emptyOperation() {
  return {
    count: 0,
    bytes: 0,
    errors: 0,
    sequential: 0,
    random: 0,
    sizes: new Map(),
    latency: { queue: new Uint32Array(BUCKETS), device: new Uint32Array(BUCKETS), total: new Uint32Array(BUCKETS) },
    cells: new Float64Array(CELLS),
  };
}

class Interval {
  constructor() {
    this.operations = OPERATIONS.map(emptyOperation);
    this.processes = new Map();
    this.files = new Map();
  }
}

/** What a recording has, counted by the second. */
export class Recording {
  constructor() {
    this.begin = null;
    this.ended = false;
    this.problem = "";
    this.lost = null;
    this.names = new Map();
    this.intervals = [];
    this.count = 0;
    this.leftOut = 0;
    this.firstNs = null;
  }

  take(kind, content) {
    if ((kind === "BEGN") !== (this.begin === null)) throw new BadRecording("The recording does not begin as one does.");
    if (kind === "RECS") {
      this.#records(content);
      return;
    }
    const values = JSON.parse(new TextDecoder().decode(content));
    if (kind === "BEGN") {
      if (values.version !== 1) throw new BadRecording("The recording has a version that this page does not know.");
      this.begin = { device: String(values.device), sizeBytes: Number(values.size_bytes), offsetNs: Number(values.clock_offset_ns) };
    } else if (kind === "FILE") {
      for (const [major, minor, inode, generation, name] of values) this.names.set(`${major}:${minor}:${inode}:${generation}`, String(name));
    } else if (kind === "END ") {
      this.ended = true;
      this.lost = Number(values.lost);
      if (values.full) this.problem = "The recording ended before its trace: it was full.";
    } else throw new BadRecording("The recording has a block that this page does not know.");
  }

  #records(content) {
    const count = content.length / RECORD_BYTES;
    if (!Number.isInteger(count)) throw new BadRecording("A block is damaged: its records have another size.");
    const view = new DataView(content.buffer, content.byteOffset, content.length);
    let at = 0;
    const column = (width) => {
      const start = at;
      at += width * count;
      return start;
    };
    const columns = { time: column(8), sector: column(8), queue: column(8), device: column(8), total: column(8), inode: column(8) };
    Object.assign(columns, { bytes: column(4), process: column(4), thread: column(4), generation: column(4), system: column(4) });
    Object.assign(columns, { flags: column(2), operation: column(1), unused: column(1), name: column(16) });
    for (let row = 0; row < count; row += 1) this.#record(view, columns, row);
  }

  #record(view, at, row) {
    const time = view.getBigUint64(at.time + 8 * row, true);
    this.firstNs ??= time;
    const second = Math.max(0, Number((time - this.firstNs) / 1000000000n));
    this.count += 1;
    if (second >= INTERVALS_MAX) {
      this.leftOut += 1;
      return;
    }
    while (this.intervals.length <= second) this.intervals.push(new Interval());
    const interval = this.intervals[second];
    const operation = interval.operations[view.getUint8(at.operation + row)];
    if (!operation) throw new BadRecording("A block is damaged: an operation is unknown.");
    const bytes = view.getUint32(at.bytes + 4 * row, true);
    const flags = view.getUint16(at.flags + 2 * row, true);
    operation.count += 1;
    operation.bytes += bytes;
    if (flags & FAILED) operation.errors += 1;
    if (bytes) {
      if (flags & SEQUENTIAL) operation.sequential += 1;
      else operation.random += 1;
      const size = 2 ** Math.floor(Math.log2(bytes));
      operation.sizes.set(size, (operation.sizes.get(size) ?? 0) + 1);
      const offset = Number(view.getBigUint64(at.sector + 8 * row, true)) * SECTOR_BYTES;
      operation.cells[Math.min(Math.floor((offset / this.begin.sizeBytes) * CELLS), CELLS - 1)] += bytes;
    }
    for (const part of ["queue", "device", "total"]) {
      const ns = view.getBigUint64(at[part] + 8 * row, true);
      if (ns !== UNKNOWN_NS) operation.latency[part][bucketOf(Number(ns))] += 1;
    }
    add(interval.processes, this.#process(view, at, row), bytes);
    add(interval.files, this.#file(view, at, row), bytes);
  }

  #process(view, at, row) {
    const raw = new Uint8Array(view.buffer, view.byteOffset + at.name + 16 * row, 16);
    const end = raw.indexOf(0);
    const number = view.getUint32(at.process + 4 * row, true);
    const name = printable(new TextDecoder().decode(raw.subarray(0, end < 0 ? 16 : end)));
    return number ? `${name || "unknown"} (process ${number})` : name || "unknown";
  }

  #file(view, at, row) {
    const inode = view.getBigUint64(at.inode + 8 * row, true);
    if (!inode) return "no file is known";
    const system = view.getUint32(at.system + 4 * row, true);
    const key = `${system >>> 20}:${system & 0xfffff}:${inode}:${view.getUint32(at.generation + 4 * row, true)}`;
    return this.names.get(key) ?? `inode ${inode}`;
  }

  /** Unix seconds of an interval's end. */
  momentOf(index) {
    return Number((this.firstNs ?? 0n) / 1000000n) / 1000 + this.begin.offsetNs / 1e9 + index + 1;
  }

  /** As the answer to `io`, of the minute that ends with this interval; with the processes and files that had most. */
  answerAt(index) {
    const shown = this.intervals.slice(Math.max(0, index - WINDOW + 1), index + 1);
    const first = index + 1 - shown.length;
    const byOperation = (of) => Object.fromEntries(OPERATIONS.map((name, place) => [name, of(place)]));
    return {
      problem: "",
      starting: false,
      timed_every: 1,
      in_requests: true,
      moments: shown.map((_, place) => this.momentOf(first + place)),
      now: byOperation((place) => report(shown.slice(-1).map((one) => one.operations[place]), 1)),
      minute: { seconds: shown.length, ...byOperation((place) => report(shown.map((one) => one.operations[place]), shown.length)) },
      latency_heat: { edges_ns: EDGES_NS, columns: byOperation((place) => shown.map((one) => powers(one.operations[place].latency.total))) },
      offset_heat: { cell_bytes: this.begin.sizeBytes / CELLS, cells: CELLS, columns: byOperation((place) => shown.map((one) => Array.from(one.operations[place].cells))) },
      processes: top(shown.map((one) => one.processes)),
      files: top(shown.map((one) => one.files)),
    };
  }
}

function add(sums, key, bytes) {
  const known = sums.has(key) || sums.size < SUBJECTS_MAX ? key : "all others";
  const sum = sums.get(known) ?? { count: 0, bytes: 0 };
  sum.count += 1;
  sum.bytes += bytes;
  sums.set(known, sum);
}

function top(intervals) {
  const sums = new Map();
  for (const interval of intervals) {
    for (const [key, { count, bytes }] of interval) {
      const sum = sums.get(key) ?? { name: key, count: 0, bytes: 0 };
      sum.count += count;
      sum.bytes += bytes;
      sums.set(key, sum);
    }
  }
  return [...sums.values()].sort((a, b) => b.bytes - a.bytes || b.count - a.count).slice(0, TOP);
}

function powers(buckets) {
  const rows = [buckets[0]];
  for (let start = 1; start < BUCKETS; start += PARTS) rows.push(buckets.subarray(start, start + PARTS).reduce((sum, one) => sum + one, 0));
  return rows;
}

function report(operations, seconds) {
  const sum = (key) => operations.reduce((all, one) => all + one[key], 0);
  const sizes = new Map();
  for (const { sizes: own } of operations) for (const [size, count] of own) sizes.set(size, (sizes.get(size) ?? 0) + count);
  const latency = (part) => {
    const buckets = new Float64Array(BUCKETS);
    for (const one of operations) for (let index = 0; index < BUCKETS; index += 1) buckets[index] += one.latency[part][index];
    return spread(buckets);
  };
  return {
    per_second: sum("count") / Math.max(seconds, 1),
    bytes_per_second: sum("bytes") / Math.max(seconds, 1),
    count: sum("count"),
    bytes: sum("bytes"),
    errors: sum("errors"),
    sequential: sum("sequential"),
    random: sum("random"),
    sizes: [...sizes].sort(([a], [b]) => a - b),
    latency_ns: { queue: latency("queue"), device: latency("device"), total: latency("total") },
  };
}

function spread(buckets) {
  const count = buckets.reduce((sum, one) => sum + one, 0);
  const found = { count };
  for (const percent of [50, 95, 99, 99.9]) {
    let left = (count * percent) / 100;
    found[`p${percent}`] = null;
    for (let index = 0; count && index < BUCKETS; index += 1) {
      if (buckets[index] && left <= buckets[index]) {
        found[`p${percent}`] = edgeOf(index) + (edgeOf(index + 1) - edgeOf(index)) * (left / buckets[index]);
        break;
      }
      left -= buckets[index];
    }
  }
  const last = buckets.findLastIndex((one) => one > 0);
  found.max = last < 0 ? null : edgeOf(last + 1);
  return found;
}
