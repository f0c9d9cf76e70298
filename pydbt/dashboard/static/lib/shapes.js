/* Answers of a controller, made into what the views draw. What an answer lacks is null, and shown as unknown. */

const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const text = (value) => (typeof value === "string" && value ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);

/** The answer to `method`: docs/reference/questions.md of the controller. */
export function methodOf(answer) {
  const log = answer.log ?? {};
  const dirty = answer.dirty_map ?? {};
  return {
    secondary: text(answer.secondary),
    secondaries: list(answer.secondaries),
    mode: text(answer.mode),
    phase: text(answer.phase),
    why: text(answer.why),
    waitingFor: text(answer.waiting_for),
    since: answer.mode_since ?? null,
    log: {
      capacity: number(log.capacity_slots),
      used: number(log.used_slots),
      start: number(log.start),
      end: number(log.end),
      active: number(log.active_transactions),
      more: number(log.more) ?? 0,
      records: list(log.records).map((record) => recordOf(record, text(answer.file_system))),
    },
    dirtyBlocks: number(dirty.blocks),
    sweepBlocks: number(answer.pending_map?.blocks),
    updates: number(answer.updates),
    lists: list(answer.update_lists).map((one) => ({
      block: number(one.block),
      count: number(one.count) ?? 1,
      sequences: list(one.sequences).map(number),
      more: number(one.more) ?? 0,
    })),
  };
}

function recordOf(record, fileSystem) {
  const kind = text(record.kind) ?? "write";
  return {
    kind,
    isDone: kind.toLowerCase() === "done",
    position: number(record.position),
    transaction: number(record.transaction),
    name: text(record.name) && [fileSystem, text(record.name)].join(" ").trim(),
    sequence: number(record.sequence),
    first: number(record.first_block),
    count: number(record.count) ?? 1,
    active: record.active === true,
  };
}

/** The answer to `writers`: docs/operating/who-writes.md of the controller. */
export function writersOf(answer) {
  const rows = (key) => list(answer[key]).map((one, index) => writerOf(one, key, index));
  const lost = answer.lost ?? {};
  return {
    problem: text(answer.problem) ?? "",
    limits: text(answer.limits) ?? "",
    starting: answer.starting === true,
    sampled: answer.sampled === true,
    captured: number(answer.captured_bytes),
    counted: number(answer.counted_bytes),
    excess: number(answer.excess_bytes),
    since: answer.since ?? null,
    lostFiles: number(lost.rows),
    lostProcesses: number(lost.writers),
    outOfSync: answer.out_of_sync ?? null,
    outrun: answer.outrun ?? null,
    processes: rows("processes"),
    groups: rows("groups"),
    files: rows("files"),
  };
}

function writerOf(one, table, index) {
  const more = [
    number(one.process) === null ? null : `process ${one.process}`,
    one.user === undefined || one.user === null ? null : `user ${text(one.user_name) ?? one.user}`,
    table === "processes" ? text(one.group) : null,
    table === "groups" && one.path !== one.name ? text(one.path) : null,
    table === "files" && one.inode && one.path ? `inode ${one.inode} on ${one.device}` : null,
  ];
  const identity = [one.kind, one.process, one.started_ns, one.cgroup, one.device, one.inode, one.generation];
  return {
    key: identity.every((part) => part === undefined || part === one.kind) ? `${one.kind}:${one.name}` : `${identity.join(":")}${one.kind === "file" ? one.name : ""}` || String(index),
    kind: text(one.kind) ?? "unknown",
    name: text(one.name) ?? "unknown",
    more: more.filter(Boolean).join(" · "),
    dirtied: number(one.dirtied_bytes),
    written: number(one.written_bytes),
    dirtiedRate: number(one.dirtied_rate_bytes),
    writtenRate: number(one.written_rate_bytes),
    outOfNormal: number(one.out_of_normal_bytes),
  };
}
