"""Made-up block I/O and writers: what the observing programs would tell."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.lab.page_bench.world import MIB, Made, moment, wave

OPERATIONS = ("read", "write", "flush", "discard")
EDGES_NS = [0, *(1 << power for power in range(8, 39))]
INTERVALS = 60
CELLS = 64
# Of an operation: I/Os per second, and the power of two of nanoseconds around which its latencies lie.
_USUAL = {"read": (420, 17.2), "write": (1900, 18.6), "flush": (24, 21.5), "discard": (0, 19.0)}


def _spread(chance: random.Random, count: int, power: float, width: float = 1.3) -> list[int]:
    columns = [0] * len(EDGES_NS)
    for _ in range(count):
        slow = 5.5 if chance.random() < 0.006 else 0.0
        at = min(max(int(chance.gauss(power + slow, width)) - 7, 0), len(EDGES_NS) - 1)
        columns[at] += 1
    return columns


def _percentiles(columns: list[int]) -> dict[str, Any]:
    total = sum(columns)
    told: dict[str, Any] = {"count": total}
    for percent in (50.0, 95.0, 99.0, 99.9):
        left, value = total * percent / 100, None
        for index, count in enumerate(columns):
            if count and left <= count:
                value = EDGES_NS[index] * (1 + left / count)
                break
            left -= count
        told[f"p{percent:g}"] = value
    used = [index for index, count in enumerate(columns) if count]
    return told | {"max": float(EDGES_NS[used[-1]] * 2) if used else None}


def _operation(name: str, seconds: float, counts: list[int]) -> dict[str, Any]:
    count = sum(counts)
    queue, device = [*counts[3:], 0, 0, 0], [*counts[1:], 0]
    size = {"read": 16384, "write": 24576}.get(name, 0)
    return {
        "per_second": count / seconds, "bytes_per_second": count * size / seconds, "count": count, "bytes": count * size,
        "errors": 0, "sequential": int(count * 0.38) if size else 0, "random": count - int(count * 0.38) if size else 0,
        "timed": count,
        "sizes": [[4096, count // 2], [8192, count // 5], [16384, count // 9], [65536, count // 14], [262144, count // 40]]
        if size else [],
        "latency_ns": {"queue": _percentiles(queue), "device": _percentiles(device), "total": _percentiles(counts)},
    }  # fmt: skip


def io(made: Made, now: float) -> dict[str, Any]:
    """The answer to ``io``, as ``IoCollector.report`` makes it."""
    moments = [math.floor(now) - INTERVALS + 1 + index for index in range(INTERVALS)]
    latency: dict[str, list[list[int]]] = {name: [] for name in OPERATIONS}
    offsets: dict[str, list[list[int]]] = {name: [] for name in OPERATIONS}
    for second in moments:
        chance = random.Random(f"{made.id}{second}")
        part = 0.3 + wave(made, second) / max(made.load, 1) if made.load else 0.0
        for name, (usual, power) in _USUAL.items():
            count = int(usual * part / 8)
            latency[name].append(_spread(chance, count, power + 1.2 * (second % 37 < 4)))
            cells = [0] * CELLS
            for cell in (3, 4, 19, 20, 21, 22, 40, second % CELLS, (second + 1) % CELLS):
                cells[cell] += int(count * 2048 * chance.random() * (3 if cell in (20, 21) else 1))
            offsets[name].append(cells if name != "flush" else [0] * CELLS)
    sums = {name: [sum(column) for column in zip(*latency[name], strict=True)] for name in OPERATIONS}
    return {
        "device": made.device, "moment": moments[-1], "interval_seconds": 1.0, "timed_every": 8 if made.load > 100 * MIB else 1,
        "in_requests": True, "problem": "", "starting": False, "moments": moments,
        "now": {name: _operation(name, 1.0, latency[name][-1]) for name in OPERATIONS},
        "minute": {"seconds": 60.0, **{name: _operation(name, 60.0, sums[name]) for name in OPERATIONS}},
        "latency_heat": {"edges_ns": EDGES_NS, "columns": latency},
        "offset_heat": {"cell_bytes": made.size_bytes // CELLS, "cells": CELLS, "columns": offsets},
        "cost": {"observing_ns_per_io": 212.0, "capture_ns_per_io": 655.0, "controller_cpu_percent": 3.4,
                 "controller_memory_bytes": 61 * MIB},
    }  # fmt: skip


def writers(made: Made, now: float, began: float, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The answer to ``writers``. ``names`` are given to further processes, groups and files."""
    seconds, rate = now - began + 300, wave(made, now)
    parts = (0.46, 0.22, 0.12, 0.05, 0.03)
    known = (("postgres", "postgresql@15-main.service", "/srv/base/16384/2619"),
             ("rsync", "backup.service", "/srv/dump/latest.tar"),
             ("java", "Docker 4f1c9d20ab31", "/srv/queue/segment-000219"), ("tar", "user@1000.service", "/srv/home/old.tar"),
             ("[kworker/u8:2-flush]", "/", "/srv/log/journal"))  # fmt: skip

    def figures(part: float, factor: float = 1.0) -> dict[str, Any]:
        written = int(part * made.load * seconds)
        return {
            "dirtied_bytes": int(written * factor), "written_bytes": written, "dirtied_rate_bytes": int(part * rate * factor),
            "written_rate_bytes": int(part * rate), "out_of_normal_bytes": written // 3 if made.standing != "good" else 0,
        }  # fmt: skip

    special = [("journal", "the file system's journal", 0.06), ("metadata", "the file system's metadata", 0.03),
               ("before", "dirtied before this was watched", 0.01), ("unknown", "unknown", 0.02)]  # fmt: skip
    tables: dict[str, list[dict[str, Any]]] = {"processes": [], "groups": [], "files": []}
    for index, (part, (process, group, file)) in enumerate(zip(parts, known, strict=True)):
        common = figures(part, 1.6 - 0.2 * index)
        tables["processes"].append({"kind": "process", "name": process, "process": 900 + 77 * index, "started_ns": index,
                                    "user": 0 if index == 4 else 100 + index, "user_name": "root" if index == 4 else None,
                                    "group": group, **common})  # fmt: skip
        tables["groups"].append(
            {"kind": "group", "name": group, "path": f"/system.slice/{group}", "cgroup": 40 + index, **common}
        )
        tables["files"].append(
            {"kind": "file", "name": file, "path": file, "inode": 131 + index, "device": "254:3", **common}
        )
    for index, name in enumerate(names):
        tables["processes"].append({"kind": "process", "name": name, "process": 40000 + index, "started_ns": 1, "user": 1000,
                                    "user_name": name, "group": name, **figures(0)})  # fmt: skip
        tables["groups"].append(
            {"kind": "group", "name": name, "path": f"/{name}", "cgroup": 9000 + index, **figures(0)}
        )
        tables["files"].append(
            {"kind": "file", "name": name, "path": name, "inode": 7000 + index, "device": "254:3", **figures(0)}
        )
    for rows in tables.values():
        rows += [{"kind": kind, "name": name, **figures(part, 0.0)} for kind, name, part in special]
    captured = sum(row["written_bytes"] for row in tables["processes"])
    is_outrun = made.standing == "will not converge"
    since = moment(began - 2460)
    outrun = {"name": "java", "process": 1054, "group": "Docker 4f1c9d20ab31", "rate_bytes": 140 * MIB,
              "link_rate_bytes": 95 * MIB, "since": since}  # fmt: skip
    out_of_sync = {
        "since": since,
        "bytes": 88 << 30,
        "watched_since": moment(began - 300),
        "written_bytes": captured // 3,
    }
    return {
        "captured_bytes": captured, "counted_bytes": captured, "excess_bytes": 0,
        **tables, "lost": {"rows": 0, "writers": 0}, "problem": "", "starting": False,
        "since": moment(began - 300), "outrun": outrun if is_outrun else None, "limits": "", "sampled": False,
        "out_of_sync": out_of_sync if is_outrun else None,
    }  # fmt: skip
