"""The kernel's two bitmaps, shared by the brains of several secondaries: who wants a flip, and who still needs the quiet one.

The quiet bitmap is zeroed only when every brain has what it names: acknowledged, or in its map on disk. A brain that wants
another flip does not wait for one that is slow: that one's map is written with everything on its way in it, which is as
good as an acknowledgement for what a crash must not forget.
"""

from __future__ import annotations

from collections.abc import Callable

from pydbt.core.primary import events as ev
from pydbt.core.primary.quiet_bitmap import QuietBitmap

# In normal mode a flip is housekeeping: acknowledgements get this long before a map is written instead of them.
COVER_AFTER_S = 1.0
# While a secondary is away its map is written with each flip: housekeeping alone is no reason to do that so often.
CALM_S = 3.0

Do = Callable[[int | None, ev.Effect], None]


class BitmapShare:
    """``do`` takes an effect, with the number of the secondary it concerns or None. ``held``: the quiet bitmap may hold bits."""

    def __init__(self, do: Do, held: bool) -> None:
        self._do = do
        self._quiets: dict[int, QuietBitmap] = {}  # brain -> what the quiet bitmap is to it
        self.held = held
        self._asking: dict[int, float] = {}  # brain -> since when it wants a flip
        self._again: set[int] = set()  # brains that want what is in the quiet bitmap once more
        self._taking: tuple[int, ...] | None = None  # for whom the quiet bitmap is being taken
        self._covering: set[int] = set()

    def join(self, peer: int, quiet: QuietBitmap) -> None:
        """A brain shares the bitmaps from here on."""
        self._quiets[peer] = quiet

    def ask(self, peer: int, flip: bool, now: float) -> None:
        """A brain wants a flip, or what the last one gave it and it could not cover."""
        if flip:
            self._asking.setdefault(peer, now)
        else:
            self._again.add(peer)

    def forget(self, peer: int) -> None:
        """This brain is gone, and needs nothing any more."""
        del self._quiets[peer]
        self._asking.pop(peer, None)
        self._again.discard(peer)
        self._covering.discard(peer)

    def taken(self, event: ev.QuietTaken, tell: Callable[[int, ev.Event], None]) -> None:
        """The answer: after a flip every brain needs what the quiet bitmap names, else only those that asked again."""
        asked, self._taking = self._taking or (), None
        for peer in list(self._quiets) if event.flipped else asked:
            if peer in self._quiets:
                mine = ev.QuietTaken(event.words, event.position, event.flipped, asked=peer in asked)
                tell(peer, mine)

    def covered(self, peer: int) -> None:
        """A map that was to cover for a slow secondary was written, or could not be."""
        self._covering.discard(peer)

    def needing(self) -> list[int]:
        """Brains that rely on the quiet bitmap."""
        return [peer for peer, quiet in self._quiets.items() if quiet.is_needed]

    def advance(self, now: float) -> None:
        """Zero it if nobody needs it; then flip, take it again, or have the slow ones covered, if somebody asks."""
        if self._taking is not None or self._covering:
            return
        needing = self.needing()
        if self.held and not needing:
            self._do(None, ev.ZeroQuiet())
            self.held = False
            for quiet in self._quiets.values():
                quiet.zeroed()
        if self._again:
            self._take(tuple(self._again), flip=False)
        elif not self._asking or now < self._due():
            return
        elif not self.held:
            self._take(tuple(self._asking), flip=True)
        else:
            for peer in needing:
                if self._quiets[peer].may_persist(now):
                    self._covering.add(peer)
                    self._do(peer, self._quiets[peer].cover())

    def _take(self, peers: tuple[int, ...], flip: bool) -> None:
        if flip:
            self._asking.clear()
        else:
            self._again.clear()
        self._taking, self.held = peers, True
        self._do(None, ev.TakeQuiet(flip))

    def _due(self) -> float:
        """When those that ask have waited long enough: at once, unless it is housekeeping."""
        calm = CALM_S if not all(quiet.in_normal_mode for quiet in self._quiets.values()) else 0.0
        patience_s = COVER_AFTER_S if self.held else calm
        waits = {peer: patience_s if self._quiets[peer].in_normal_mode else 0.0 for peer in self._asking}
        return min((since + waits[peer] for peer, since in self._asking.items()), default=float("inf"))

    def deadline(self) -> float:
        """When ``advance`` can do more without another event."""
        return self._due() if self._asking and not self._covering and self._taking is None else float("inf")
