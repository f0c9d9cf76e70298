"""A real secondary, killed at random instants: its image is always a whole prefix of the data that it was sent."""

from __future__ import annotations

import random
import re
import threading
import time

import pytest

from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import Begin, Commit
from tests.lab.rounds import short
from tests.network.scripted import BLOCK, EPOCH, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame

BLOCKS = 1024
SIZE = BLOCKS * BLOCK
ROUNDS = 10


def content(block: int, sequence: int) -> bytes:
    """A block whose every sector tells where it belongs and which write it is of."""
    return b"".join(f"{block}.{sector} written by {sequence}\n".encode().ljust(512, b".") for sector in range(8))


class History:
    """Every write there ever was; update n writes block ``writes[n - 1]``."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.writes: list[int] = []

    def grow(self, count: int) -> None:
        self.writes += [self.rng.randrange(BLOCKS) for _ in range(count)]

    def newest(self, first: int, last: int) -> dict[int, int]:
        """Block to last sequence, of the updates first to last."""
        return {self.writes[n - 1]: n for n in range(first, last + 1)}

    def image(self, sequence: int) -> bytes:
        newest = self.newest(1, sequence)
        return b"".join(content(b, newest[b]) if b in newest else bytes(BLOCK) for b in range(BLOCKS))


def play(primary: ScriptedPrimary, history: History, at: int, resync: int) -> None:
    """Stream on from ``at``, now and then by way of a resync, until the connection breaks."""
    rng = history.rng
    batch = 1_000_000
    while True:
        history.grow(rng.choice([1, 7, 200]))
        last = len(history.writes)
        if rng.random() < 0.1:
            resync += 1
            primary.send(Begin(resync, EPOCH, SIZE))
            newest = history.newest(max(primary.ack.sequence, 0) + 1, last)
            for begin in range(0, len(newest), 300):
                batch += 1
                part = dict(list(newest.items())[begin : begin + 300])
                primary.send(blocks_frame(batch, {block: content(block, n) for block, n in part.items()}))
            primary.send(Commit(resync, last))
        else:
            writes = [(history.writes[n - 1], content(history.writes[n - 1], n)) for n in range(at + 1, last + 1)]
            primary.send(stream_frame(at + 1, writes))
        at = last
        if rng.random() < 0.5:
            primary.until(lambda last=last: primary.ack.sequence >= last, "everything is acknowledged")


@pytest.mark.parametrize("seed", short(1, 1, 2))
def test_killed_at_random_instants_the_image_is_a_prefix_that_holds_all_that_was_acknowledged(tmp_path, seed):
    history = History(seed)
    secondary = SecondaryProcess(tmp_path, SIZE, journal_limit_bytes=64 << 20)
    acknowledged, resync = 0, 1
    for number in range(ROUNDS):
        with secondary:
            primary = ScriptedPrimary(secondary.port, SIZE)
            welcome = primary.welcome
            assert welcome.sequence >= acknowledged
            if number == 0:
                primary.synchronize([], 0)
            elif welcome.staged:
                # Nothing acknowledged may be missing: start over from the consistent image.
                history_since = history.newest(welcome.sequence + 1, len(history.writes))
                parts = [{b: content(b, n)} for b, n in history_since.items()]
                frames = [blocks_frame(i + 1, part) for i, part in enumerate(parts)]
                resync += 1000
                primary.synchronize(frames, len(history.writes), resync, SIZE)
                welcome_at = len(history.writes)
            at = 0 if number == 0 else (welcome_at if welcome.staged else welcome.sequence)
            primary.ack = type(primary.ack)(at)
            killer = threading.Timer(history.rng.uniform(0.02, 0.6), secondary.process.kill)
            killer.start()
            with pytest.raises((PeerError, AssertionError)):
                play(primary, history, at, resync + number * 100)
            killer.join()
            secondary.process.wait()
            acknowledged = primary.ack.sequence
            primary.close()
            assert "broke the protocol" not in secondary.words()
        words = secondary.replay()
        # An unfinished resync makes it outdated, never inconsistent: it was staged.
        reached = int(re.match(r"(?:consistent|outdated) at sequence (\d+)", words).group(1))
        assert acknowledged <= reached <= len(history.writes)
        assert secondary.target.read_bytes() == history.image(reached), f"no prefix after kill {number}"
    assert acknowledged > 100


def test_killed_while_it_recovers_it_recovers_again(tmp_path):
    history = History(5)
    secondary = SecondaryProcess(tmp_path, SIZE, journal_limit_bytes=64 << 20)
    with secondary:
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([], 0)
        history.grow(4000)
        for first in range(1, 4001, 100):
            writes = [(history.writes[n - 1], content(history.writes[n - 1], n)) for n in range(first, first + 100)]
            primary.send(stream_frame(first, writes))
        primary.until(lambda: primary.ack.sequence == 4000, "everything is acknowledged")
        secondary.kill()
    for delay in (0.0, 0.01, 0.05):
        with secondary:
            time.sleep(delay)
            secondary.kill()
    assert "sequence 4000" in secondary.replay()
    assert secondary.target.read_bytes() == history.image(4000)
