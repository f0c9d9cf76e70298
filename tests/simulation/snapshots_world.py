"""The simulated world with addresses only: devices that can be frozen, caught at rest, or looked at through snapshots."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import BeginFlag
from tests.simulation.world import Cluster, Faults


@dataclass(frozen=True)
class Holding:
    """How the source can be held, and what goes wrong with it (probabilities of one hold)."""

    kind: str = "freeze"
    refused: float = 0.0
    thaws_early: float = 0.0  # a freeze that somebody ends: the brain must notice by the writes
    overflow: float = 0.0  # a snapshot whose store is full before everything was read
    reads_on: float = 0.0  # such a snapshot gives rubbish instead of errors
    slow: float = 0.0  # a hold that takes as long as this to stand

    @property
    def apart(self) -> bool:
        return self.kind in ("snapshot", "thin")


class SnapshotCluster(Cluster):
    """``images`` are what the source held at any instant, since the last hold, that an epoch may be an image of."""

    def __init__(
        self, seed: int, faults: Faults, holding: Holding, interval_s: float = 1.0, digests: bool = True
    ) -> None:
        super().__init__(seed, faults, digests=digests)
        self.holding = holding
        config = replace(self.brain.config, snapshot_interval_s=interval_s, hold_limit_s=2.0)
        self.brain = Primary(config, 0.0)
        self.frozen = False
        self.hold = 0
        self.snapshot: list[int] | None = None
        self.overflowed = False
        self.images: set[tuple[int, ...]] = set()
        self.committed: list[tuple[int, ...]] = []
        self.image: tuple[int, ...] | None = None  # what the secondary would be promoted with
        self.held_log: list[str] = []
        self.waits: dict[int, int] = {}

    # --- the source ---------------------------------------------------------------------------------------
    def submit(self, block: int) -> int | None:
        """A write, unless the file system is frozen."""
        return None if self.frozen else self.kernel.submit(block)

    def note_image(self) -> None:
        if not self.kernel.flying:
            self.images.add(tuple(self.kernel.disk))

    def step(self, seconds: float) -> None:
        super().step(seconds)
        self.note_image()

    # --- effects ------------------------------------------------------------------------------------------
    def carry_out(self, effect, answers: list) -> None:
        self.note_image()
        match effect:
            case ev.Flush():
                self.at(self.rng.random() * 0.02, lambda: self.feed(ev.Flushed(self.holding.kind, self.holding.apart)))
            case ev.Hold(hold=hold, gently=gently):
                self.gently = gently
                assert self.hold == 0, "a hold was asked for while another one stands"
                self.hold = hold
                self.images.clear()
                self.note_image()
                self.at(self.rng.random() * max(0.01, self.holding.slow), lambda: self.stand(hold))
            case ev.Release(hold=hold):
                assert hold == self.hold, "a hold was released that does not stand"
                self.at(self.rng.random() * 0.01, lambda: self.let_go(hold))
            case ev.ReadBlocks(reading=reading, runs=runs, from_snapshot=True):
                self.at(self.rng.random() * 0.02, lambda: self.read_snapshot(reading, runs))
            case _:
                super().carry_out(effect, answers)

    def stand(self, hold: int) -> None:
        if hold != self.hold:
            return
        if self.rng.random() < self.holding.refused:
            self.feed(ev.Held(hold, self.holding.kind, 0, error="simulated refusal"))
            return
        if self.holding.apart:
            # A suspension waits for what is in flight; then the image is taken, and writes go on.
            for identifier in list(self.kernel.flying):
                self.kernel.complete(identifier)
            self.snapshot, self.overflowed = list(self.kernel.disk), False
            self.images = {tuple(self.snapshot)}
            if self.rng.random() < self.holding.overflow:
                self.at(self.rng.random() * 0.003, self.overflow)
            # Something may be written between the snapshot and the word of it.
            for _ in range(self.rng.randrange(4)):
                identifier = self.kernel.submit(self.rng.randrange(self.kernel.blocks))
                if identifier is not None:
                    self.kernel.complete(identifier)
        elif self.holding.kind == "freeze" and not self.gently:
            self.frozen = True
            if self.rng.random() < self.holding.thaws_early:
                self.at(self.rng.random() * 0.05, self.thaw)
        self.feed(ev.Held(hold, self.holding.kind, self.kernel.produced, self.holding.apart))

    def write_soon(self) -> None:
        identifier = self.kernel.submit(self.rng.randrange(self.kernel.blocks))
        if identifier is not None:
            self.at(self.rng.random() * 0.03, lambda: self.complete(identifier))

    def complete(self, identifier: int) -> None:
        if identifier in self.kernel.flying:
            self.kernel.complete(identifier)

    def thaw(self) -> None:
        self.frozen = False

    def overflow(self) -> None:
        if self.snapshot is not None:
            self.overflowed = True

    def let_go(self, hold: int) -> None:
        self.frozen, self.snapshot, self.hold = False, None, 0
        error = "the snapshot's store was full" if self.overflowed else ""
        self.overflowed = False
        self.feed(ev.Released(hold, 1.0, error))

    def read_snapshot(self, reading: int, runs: Runs) -> None:
        if reading in self.dropped:
            return
        if self.snapshot is None or (self.overflowed and self.rng.random() >= self.holding.reads_on):
            self.feed(ev.BlocksRead(reading, self.kernel.produced, 0, error="simulated: the snapshot is invalid"))
            return
        blocks = runs.blocks().tolist()
        rubbish = 10**6 if self.overflowed else 0
        self.readings[reading] = {block: self.snapshot[block] + rubbish for block in blocks}
        self.feed(ev.BlocksRead(reading, self.kernel.produced, len(blocks) * 4096))

    # --- the secondary ------------------------------------------------------------------------------------
    def secondary_takes(self, message: tuple):
        match message:
            case ("frame", frame) if type(frame).__name__ == "Begin":
                assert frame.flags & BeginFlag.NO_STREAM
        answer = super().secondary_takes(message)
        if message[0] == "frame" and type(message[1]).__name__ == "Commit":
            self.image = tuple(self.secondary.content)
            self.committed.append(self.image)
            assert self.image in self.images, f"epoch {len(self.committed)} is no image of the source at {self.now:.3f}"
        assert message[0] != "stream", "data was streamed"
        return answer

    def check_prefix(self) -> None:
        """What a sequence number holds says nothing here: ``images`` do."""

    @property
    def was_normal(self) -> bool:
        return Mode.SNAPSHOTS in self.modes
