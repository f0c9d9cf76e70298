"""``scripts/bench drbd``: the incumbent and ways to track writes beside pydbt, on the same two machines in one run

Every contender has a disk of its own, of one kind, and is switched off while others have their turn. Turns alternate;
ratios are taken within a round. Everything runs under an emulated processor (see ``machine``): programs take many times
longer than on a real one and disks do not, so that what costs processor time looks worse than it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_high
from typing import cast

from tests.lab.figures.report import Figure, figure, table
from tests.vm.contenders import DISKS, MIB, Contender, Replicator, everybody
from tests.vm.machine import Machine
from tests.vm.pair import Pair, pair

SECONDS, QUICK_SECONDS = 10, 4
ROUNDS, QUICK_ROUNDS = 5, 2
DEPTH = 8
REGION_MIB = 128
# This many 4 KiB blocks, none of them twice, are written while the link is down.
OUTAGE_BLOCKS, QUICK_OUTAGE_BLOCKS = 8192, 2048
BLOCK_BYTES = 4096


@dataclass
class Measured:
    """What one contender did, one value a round."""

    writes_per_s: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    latency_p99_ms: list[float] = field(default_factory=list)
    behind_s: list[float] = field(default_factory=list)
    resync_s: list[float] = field(default_factory=list)
    resync_wire_bytes: list[float] = field(default_factory=list)


def fio(machine: Machine, device: str, seed: int, *, seconds: int = 0, blocks: int = 0) -> dict:
    """One job of random writes; the ``write`` part of fio's own report."""
    length = f"--time_based --runtime={seconds}" if seconds else f"--number_ios={blocks}"
    done = machine.run(
        f"fio --name=compared --filename={device} --rw=randwrite --bs={BLOCK_BYTES} --direct=1 --ioengine=libaio"
        f" --iodepth={DEPTH} --size={REGION_MIB}M --randseed={seed} --refill_buffers {length} --output-format=json",
        timeout=seconds + 300,
    )
    return json.loads(done.output[done.output.index("{") :])["jobs"][0]["write"]


def measure(
    machines: Pair, contenders: Sequence[Contender], rounds: int, seconds: int, blocks: int
) -> dict[str, Measured]:
    results: dict[str, Measured] = defaultdict(Measured)
    for contender in contenders:
        say(f"setting up {contender.name}")
        contender.set_up(machines)
    for turn in range(rounds):
        order = contenders if turn % 2 == 0 else contenders[::-1]
        for contender in order:
            say(f"round {turn + 1} of {rounds}: {contender.name}")
            _one_turn(machines, contender, results[contender.name], turn, seconds, blocks)
    return results


def _one_turn(machines: Pair, contender: Contender, result: Measured, turn: int, seconds: int, blocks: int) -> None:
    device = contender.switch_on()
    write = fio(machines.primary, device, turn + 1, seconds=seconds)
    result.writes_per_s.append(write["iops"])
    result.latency_ms.append(write["clat_ns"]["mean"] / 1e6)
    result.latency_p99_ms.append(write["clat_ns"]["percentile"]["99.000000"] / 1e6)
    if contender.replicates:
        replicator = cast(Replicator, contender)
        result.behind_s.append(replicator.seconds_behind())
        _outage(machines, replicator, device, result, turn, blocks)
    contender.switch_off()


def _outage(machines: Pair, contender: Replicator, device: str, result: Measured, turn: int, blocks: int) -> None:
    """The link is cut, blocks are written, the link is mended: how long, and how much on the wire, until all is the same."""
    machines.cut_link()
    fio(machines.primary, device, turn + 100, blocks=blocks)
    contender.until_outage_noticed()
    before = _wire_bytes(machines.primary)
    machines.mend_link()
    mended = float(machines.primary.run("date +%s.%N").output)
    result.resync_s.append(contender.until_in_sync() - mended)
    result.resync_wire_bytes.append(_wire_bytes(machines.primary) - before)


def _wire_bytes(machine: Machine) -> int:
    counters = machine.run("cat /sys/class/net/eth1/statistics/rx_bytes /sys/class/net/eth1/statistics/tx_bytes").output
    return sum(map(int, counters.split()))


def figures(results: dict[str, Measured], blocks: int) -> list[Figure]:
    plain = next(iter(results.values()))
    rows = []
    for name, result in results.items():
        rates = [one / other for one, other in zip(result.writes_per_s, plain.writes_per_s, strict=True)]
        latency = median_high(result.latency_ms)
        p99 = median_high(result.latency_p99_ms)
        rate = median_high(result.writes_per_s)
        what = f"{rate:,.0f} writes/s, {latency:.2f} ms on average, {p99:.2f} ms at 99 %"
        rows.append(figure("drbd", f"{name}: random writes against the disk itself", what, "x", rates))
    for name, result in results.items():
        if result.behind_s:
            what = "until the secondary has all"
            rows.append(figure("drbd", f"{name}: behind when the writers end", what, "s", result.behind_s))
    for name, result in results.items():
        if result.resync_s:
            size = f"{blocks * BLOCK_BYTES / MIB:.0f} MiB differ"
            wire = [bytes_ / (blocks * BLOCK_BYTES) for bytes_ in result.resync_wire_bytes]
            rows.append(figure("drbd", f"{name}: in sync after an outage", size, "s", result.resync_s))
            rows.append(figure("drbd", f"{name}: on the wire for that, against what differs", size, "x", wire))
    return rows


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench drbd", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, for a rough look")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    only = "contenders with this word in their name, and the bare disk"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=only)
    chosen = parser.parse_args()
    contenders = everybody()
    if chosen.only:
        contenders = [contenders[0], *(c for c in contenders[1:] if any(word in c.name for word in chosen.only))]
    rounds, seconds, blocks = (
        (QUICK_ROUNDS, QUICK_SECONDS, QUICK_OUTAGE_BLOCKS) if chosen.quick else (ROUNDS, SECONDS, OUTAGE_BLOCKS)
    )
    with pair(DISKS) as machines:
        rows = figures(measure(machines, contenders, rounds, seconds, blocks), blocks)
    print(json.dumps([row.as_dict() for row in rows], indent=2) if chosen.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
