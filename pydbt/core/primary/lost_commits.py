"""The file system's transactions whose commit did not reach the disk for certain: nobody holds them, whatever is held later.

They are known by their ordinal, and to who waits for one by its name, until the file system gives that name again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.transactions.asked_transaction import AskedTransaction

FAILED = "a write of it failed"
UNSEEN = "the end of a write of it was never shown"
MAX_LOST = 512
"""The newest ones. A file system stops at the first commit that fails."""


@dataclass(frozen=True, slots=True)
class LostCommit:
    """``asked``: what reaches it; None when this name means another one by now."""

    ordinal: int
    asked: AskedTransaction | None
    reason: str


class LostCommits:
    """Of one secondary."""

    def __init__(self) -> None:
        self._lost: deque[LostCommit] = deque(maxlen=MAX_LOST)

    def add(self, named: NamedTransaction, reason: str) -> None:
        """This one will not be complete."""
        self._lost.append(LostCommit(named.ordinal, AskedTransaction.parse(named.name), reason))

    def learn(self, other: LostCommits) -> None:
        """Those that the brain of another secondary knows of, which was there before: it may be removed, and they stay lost."""
        known = {one.ordinal for one in self._lost}
        self._lost.extend(one for one in other._lost if one.ordinal not in known)

    def given_again(self, names: Iterable[NamedTransaction]) -> None:
        """Transactions were submitted: one with the name of a lost one is meant by that from here on."""
        if self._lost:
            self._drop({AskedTransaction.parse(one.name) for one in names})

    def forget_names(self) -> None:
        """The file system is another one."""
        self._drop({one.asked for one in self._lost if one.asked is not None})

    def _drop(self, names: set[AskedTransaction]) -> None:
        kept = [replace(one, asked=None) if one.asked in names else one for one in self._lost]
        self._lost = deque(kept, MAX_LOST)

    def by_ordinal(self) -> dict[int, str]:
        """The reasons."""
        return {one.ordinal: one.reason for one in self._lost}

    def reason(self, asked: AskedTransaction) -> str:
        """Why who waits for this one waits in vain; empty when nothing is known against it."""
        return next((one.reason for one in self._lost if one.asked == asked), "")
