"""What of the state file is on the disk, and what goes to a secondary only when it is.

The state is written as a whole, in a thread, while the loop goes on. So its writes have numbers: one that has ended well
brings everything that was asked for up to its number, whatever became of those before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Act = Callable[[], None]


class Saves:
    """The writes of one state file, by number."""

    def __init__(self) -> None:
        self.asked = 0
        self.durable = 0
        """Everything that was asked for up to this number is on the disk."""

    def ask(self) -> int:
        """The number of one more."""
        self.asked += 1
        return self.asked

    def ended(self, number: int, *, well: bool) -> None:
        """They end in the order of their numbers. Of one that ended badly nothing counts: the next one writes it as well."""
        if well:
            self.durable = number


class Resting:
    """What is told when a write has ended well, by number, in its order."""

    def __init__(self) -> None:
        self._numbers: deque[tuple[int, int]] = deque()  # the write that each rests on, and its own

    def rest(self, save: int, number: int) -> None:
        """This number rests on that write."""
        self._numbers.append((save, number))

    def take(self, durable: int) -> list[int]:
        """Those that are on the disk now; each once."""
        taken = []
        while self._numbers and self._numbers[0][0] <= durable:
            taken.append(self._numbers.popleft()[1])
        return taken


class Withheld:
    """What goes to one secondary, in its order. What tells of something rests on the write that has it: that comes first.

    A new name of the content, which a secondary knows and its primary forgets in a crash, would be the name of a stranger.
    """

    def __init__(self) -> None:
        self._rests_on = self._durable = 0
        self._acts: deque[tuple[int, int, Act]] = deque()  # the write it rests on, and its bytes
        self.bytes = 0

    @property
    def waits(self) -> bool:
        """Whether what is given now has to wait."""
        return self._rests_on > self._durable

    def rest_on(self, save: int) -> None:
        """Whatever is given from here on waits for this write."""
        self._rests_on = save

    def give(self, act: Act, size_bytes: int = 0) -> None:
        """Do it behind all that was given before, now or when that may be done."""
        if not self.waits and not self._acts:
            act()
            return
        self._acts.append((self._rests_on, size_bytes, act))
        self.bytes += size_bytes

    def saved(self, durable: int) -> None:
        """What is on the disk now: do what has waited for it."""
        self._durable = durable
        while self._acts and self._acts[0][0] <= durable:
            _, size_bytes, act = self._acts.popleft()
            self.bytes -= size_bytes
            act()

    def drop(self) -> None:
        """Forget what was given. What is given next waits all the same."""
        self._acts.clear()
        self.bytes = 0
