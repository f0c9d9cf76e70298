"""Whether the memory of direct writes is watched for a change during the write, which costs as much as capturing the write."""

from __future__ import annotations

MEMORY_WATCHES = ("off", "auto", "on")


class MemoryWatch:
    """``asked``: the option. ``possible``: whether this kernel can watch memory; of addresses alone nothing is to be watched.

    With ``auto`` it is watched until a first look shows nobody who changes memory that is being written, and from the first
    time on that one does. It stays so then: a guest that has ended may come back at any time.
    """

    def __init__(self, asked: str, *, possible: bool, needed: bool = True) -> None:
        self._asked, self._possible, self._needed = asked, possible, needed
        self._looked = self._seen = False

    @property
    def asks(self) -> bool:
        """Whether it matters if anybody changes memory that is being written."""
        return self._needed and (self._asked != "on" or not self._possible)

    @property
    def is_on(self) -> bool:
        return self._possible and (self._asked == "on" or (self._asked == "auto" and (self._seen or not self._looked)))

    def look(self, somebody: bool) -> None:
        """Whether anybody is there now who changes memory that is being written."""
        self._looked, self._seen = True, self._seen or somebody

    def swap_words(self) -> str:
        """What becomes of the blocks of swap on the volume."""
        if self.is_on or not self._needed:
            return "which is noticed, and such blocks are read again"
        return f"so that blocks can differ until the next verification ({self._why_not})"

    def guest_notice(self, guests: bool) -> str:
        """What the operator of virtual machines is to know; empty when there is nothing."""
        if not guests or self.is_on or not self._needed:
            return ""
        return (
            f"virtual machines may run on this machine, and the memory of direct writes is not watched ({self._why_not}): blocks "
            "that a guest changes while they are written, as by its swap, can differ until the next verification"
        )

    @property
    def _why_not(self) -> str:
        return "watch-memory is off" if self._possible else "this kernel cannot watch memory"
