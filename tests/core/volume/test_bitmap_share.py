"""The kernel's two bitmaps among several secondaries: nobody's bits are zeroed, and a slow one holds nobody back."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import Bits, QuietBitmap
from pydbt.core.volume.bitmap_share import BitmapShare
from tests.core.primary.parts import state_of

WORDS = np.array([1], np.uint64)


class Shared:
    """Secondaries 1 and 2 of one volume, and the effects that their share of the bitmaps asks for."""

    def __init__(self, held: bool = False) -> None:
        self.effects: list[tuple[int | None, ev.Effect]] = []
        self.share = BitmapShare(lambda number, effect: self.effects.append((number, effect)), held)
        self.quiets = {number: QuietBitmap(state_of(mode=Mode.RESYNCHRONIZING), 0.0) for number in (1, 2)}
        for number, quiet in self.quiets.items():
            quiet.mapped = True
            self.share.join(number, quiet)

    def advance(self, now: float = 0.0) -> list[tuple[int | None, ev.Effect]]:
        self.share.advance(now)
        made, self.effects = self.effects, []
        return made

    def taken(self, flipped: bool) -> list[tuple[int, bool]]:
        """Who is told of the bitmap, and whether it had asked."""
        told: list[tuple[int, bool]] = []
        event = ev.QuietTaken(WORDS, 0, flipped)
        self.share.taken(
            event, lambda number, mine: told.append((number, isinstance(mine, ev.QuietTaken) and mine.asked))
        )
        return told


def test_every_secondary_takes_a_flip_and_only_one_that_asked_takes_the_bitmap_again() -> None:
    shared = Shared()
    shared.share.ask(1, flip=True, now=0.0)
    assert shared.advance() == [(None, ev.TakeQuiet(flip=True))] and shared.share.held
    assert shared.taken(flipped=True) == [(1, True), (2, False)]
    for quiet in shared.quiets.values():
        quiet.bits = Bits()
    shared.share.ask(2, flip=False, now=0.0)
    assert shared.advance() == [(None, ev.TakeQuiet(flip=False))]
    assert shared.taken(flipped=False) == [(2, True)]


def test_a_secondary_that_was_removed_meanwhile_is_told_nothing() -> None:
    shared = Shared()
    shared.share.ask(2, flip=True, now=0.0)
    shared.advance()
    shared.share.forget(2)
    assert shared.taken(flipped=True) == [(1, False)]
    shared.share.ask(1, flip=False, now=0.0)
    shared.advance()
    shared.share.forget(1)
    assert shared.taken(flipped=False) == []


def test_the_bitmap_is_zeroed_once_nobody_needs_it() -> None:
    shared = Shared(held=True)
    shared.quiets[1].bits = Bits()
    assert shared.advance() == [] and shared.share.needing() == [1]
    shared.quiets[1].bits = None
    assert shared.advance() == [(None, ev.ZeroQuiet())] and not shared.share.held


def test_a_secondary_whose_map_cannot_be_written_now_is_not_asked_for_it_again_and_again() -> None:
    shared = Shared(held=True)
    shared.quiets[2].bits = Bits()
    shared.share.ask(1, flip=True, now=0.0)
    ((number, effect),) = shared.advance()
    assert number == 2 and isinstance(effect, ev.Persist) and effect.cover
    assert shared.share.deadline() == float("inf"), "until it is written, or is not"
    shared.quiets[2].written(ev.Persisted(zeroed=False, error="no space left", cover=True, number=effect.number), 0.0)
    shared.share.covered(2)
    assert shared.advance() == [] and shared.share.held
    ((number, effect),) = shared.advance(now=60.0)
    assert number == 2 and effect == ev.Persist(zero_quiet=True, cover=True)
