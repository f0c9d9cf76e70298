"""What happens in a world, drawn from a seed before anything does: a shape, and a list of operations.

Every operation has a seed of its own. So when some are left out, the others still do the same, and a failure can be
shrunk to the few that matter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.simulation.cluster.kernel import Odds
from tests.simulation.cluster.marks import MOST_MARKS, has_history


@dataclass(frozen=True, slots=True)
class Op:
    """``kind`` is a method of World; ``seed`` of the chance in it; ``seconds`` pass before it."""

    kind: str
    seed: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:6.3f} s, {self.kind} (seed {self.seed})"


@dataclass(frozen=True)
class Shape:
    """The sizes and habits of one world. ``limits`` are constants of the core, made as small as the world."""

    block_bytes: int
    size_bytes: int
    ring_records: int
    data_bytes: int
    log_slots: int
    journal_bytes: int
    stage: bool
    digests: bool
    compress: bool
    odds: Odds
    secondary: dict[str, object] = field(default_factory=dict)
    delay: float = 0.005
    write_rate: float = 1.0
    bytes_per_second: float = 20e6
    rate_limit: int | None = None
    limits: dict[str, int] = field(default_factory=dict)
    secondaries: int = 1  # machines there are; the volume begins with the first of them, or with all
    all_at_once: bool = True


@dataclass(frozen=True)
class Plan:
    seed: int
    shape: Shape
    ops: tuple[Op, ...]

    def with_ops(self, ops: tuple[Op, ...]) -> Plan:
        return replace(self, ops=ops)


# What a world may suffer from, and how often: a step is one of these, or nothing but writes.
TROUBLES = {
    "cut": 8,
    "half_cut": 4,
    "lose_peer": 2,
    "hold": 4,
    "hold_one_way": 4,
    "damage": 3,
    "kill_primary": 6,
    "power_primary": 1.5,
    "stop_primary": 2,
    "down_primary": 2,
    "kill_secondary": 8,
    "freeze_primary": 2,
    "freeze_secondary": 2,
    "full_secondary": 3,
    "bad_secondary": 2,
    "full_primary": 2,
    "bad_reads": 1,
    "burst": 4,
    "wait": 8,
    "pause": 2,
    "flush": 2,
    "idle": 10,
    "look": 10,
}
# And with several secondaries: they come and go while the others are replicated to.
MORE_TROUBLES = {"add": 8, "remove": 5}
HOW_MANY = (1, 1, 2, 2, 3)  # fmt: skip
# In this share of the worlds a secondary is put back, with its state, to what it once was.
PUT_BACK = 0.15
PUT_BACK_STEPS = 40
# In this share of the worlds with one secondary both sides are to change places, in the second half.
SWITCHOVER = 0.2
# In one of this many worlds blocks of a target cannot be written for a while; all others are what they would be without.
BAD_TARGET_EVERY, BAD_TARGET_AT = 16, 13
STEPS = (60, 220)
MAX_BYTES = 40 << 10


def draw(seed: int) -> Plan:
    """The world of a seed."""
    rng = random.Random(seed)
    block = rng.choice((512, 1024, 2048, 4096))
    blocks = rng.randint(6, min(48, MAX_BYTES // block))
    size = blocks * block - (rng.choice((0, 512)) if block > 512 else 0)
    odd = rng.random() < 0.5
    odds = Odds(
        overlap=rng.choice((0, 0.3, 1)) if odd else 0,
        failed=rng.choice((0, 0.05, 0.2)) if odd else 0,
        unstable=rng.choice((0, 0, 0.1)) if odd else 0,
        unseen=rng.choice((0, 0, 0, 0.02)) if odd else 0,
        slow=rng.choice((0, 0.02, 0.1)),
        breath=rng.choice((0.02, 0.15, 0.3)),
    )
    shape = Shape(
        block_bytes=block,
        size_bytes=size,
        ring_records=rng.choice((24, 64, 400)),
        data_bytes=rng.choice((16, 32)) << 10,
        log_slots=rng.choice((64, 64, 1024)),
        journal_bytes=rng.choice((2, 3, 8)) * (64 << 10),
        stage=rng.random() < 0.7,
        digests=rng.random() < 0.7,
        compress=rng.random() < 0.2,
        odds=odds,
        secondary={
            "checkpoint_bytes": rng.choice((4096, 65536)),
            "checkpoint_seconds": rng.choice((0.05, 5.0)),
            "sync_bytes": rng.choice((2048, 32768)),
            "stage_margin_bytes": 4096,
        },
        delay=rng.choice((0.001, 0.01, 0.1)),
        write_rate=rng.choice((0.3, 1.0, 3.0)),
        bytes_per_second=rng.choice((20e3, 200e3, 20e6)),
        rate_limit=rng.choice((None, None, None, 50_000)),
        limits={
            "OUTBOUND_LIMIT_BYTES": rng.choice((1024, 16384, 8 << 20)),
            "READING_BYTES": rng.choice((4096, 16384, 1 << 20)),
            "WINDOW_BYTES": rng.choice((8192, 24 << 20)),
            "SMALL_REMAINDER_BYTES": rng.choice((2048, 1 << 20)),
        },
    )
    several = rng.choice(HOW_MANY)
    shape = replace(shape, secondaries=several, all_at_once=rng.random() < 0.7)
    troubles = TROUBLES | (MORE_TROUBLES if several > 1 else {})
    steps = rng.randint(*STEPS)
    # A quiet start, so that most worlds are in normal mode before anything happens.
    ops = [Op("work", rng.getrandbits(32), rng.random() * 0.3) for _ in range(rng.choice((5, 25)))]
    share = rng.choice((0.05, 0.15, 0.4))
    suffers = rng.sample(list(troubles), rng.randint(2, len(troubles)))
    weights = [troubles[name] for name in suffers]
    while len(ops) < steps:
        kind = rng.choices(suffers, weights)[0] if rng.random() < share else "work"
        ops.append(Op(kind, rng.getrandbits(32), rng.random() ** 3 * 0.4))
    if rng.random() < PUT_BACK:  # drawn last: all other worlds are what they would be without
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(ops))
            ops.insert(place, Op("back_up", rng.getrandbits(32), 0.0))
            ops.insert(min(place + rng.randint(2, PUT_BACK_STEPS), len(ops)), Op("put_back", rng.getrandbits(32), 0.0))
    if several == 1 and rng.random() < SWITCHOVER:
        for _ in range(rng.randint(1, 2)):
            ops.insert(rng.randrange(len(ops) // 2, len(ops) + 1), Op("switchover", rng.getrandbits(32), 0.0))
    if seed % BAD_TARGET_EVERY == BAD_TARGET_AT and not {"put_back", "switchover"} & {op.kind for op in ops}:
        for _ in range(rng.choice((1, 1, 3))):  # the second heals them
            ops.insert(rng.randrange(len(ops)), Op("bad_target", rng.getrandbits(32), 0.0))
    if has_history(seed):
        for _ in range(rng.randint(4, MOST_MARKS)):
            place = rng.randrange(len(ops) + 1)
            ops.insert(place, Op("mark", rng.getrandbits(32), 0.0))
            if rng.random() < 0.3:  # while it is on its way
                what = rng.choice(("cut", "lose_peer", "kill_secondary", "kill_primary", "burst"))
                ops.insert(place + 1, Op(what, rng.getrandbits(32), rng.random() * 0.02))
    return Plan(seed, shape, tuple(ops))
