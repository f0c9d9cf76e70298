"""What was found out for the better: it counts as soon as it is on the disk, and not before.

A crash forgets what is not. Whoever had been told that everything was compared would be told the opposite by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriteDown:
    """Have written down what is known of the secondary now; answers ``WrittenDown`` some time later, when it is on the disk.
    Nobody is told before that it has become better."""

    number: int


@dataclass(frozen=True, slots=True)
class WrittenDown:
    """What was known when the ``WriteDown`` of this number was asked for is on the disk."""

    number: int


class Unwritten:
    """That the secondary is in sync for the first time, or once more after it was in doubt; and that taints are answered.

    ``taints``: those that are answered, and still on the disk.
    """

    def __init__(self) -> None:
        self.taints: tuple[str, ...] = ()
        self._asked = self._written = 0
        self._is_due = False

    @property
    def waits(self) -> bool:
        """Whether a crash of now would forget something."""
        return self._is_due or self._written < self._asked

    def add(self, *taints: str) -> None:
        """Something more is known; of these taints that they are answered."""
        self._is_due = True
        self.taints = tuple(dict.fromkeys((*self.taints, *taints)))

    def take(self) -> list[WriteDown]:
        """What is to be asked for, once; behind all that it stands for."""
        if not self._is_due:
            return []
        self._is_due = False
        self._asked += 1
        return [WriteDown(self._asked)]

    def written(self, number: int) -> None:
        """What was asked for under this number is on the disk, and all that was asked for before."""
        self._written = number
        if not self.waits:
            self.taints = ()
