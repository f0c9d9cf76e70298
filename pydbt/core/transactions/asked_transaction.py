"""A transaction that a person or program asks for, by the name that the file system's tools print."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXT4 = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")
_XFS = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")
_NUMBERS = 1 << 32
CURRENT = "current"
"""Asks for the newest transaction whose commit had completed at that moment."""


@dataclass(frozen=True, slots=True)
class AskedTransaction:
    """``number`` is the tid of ext4, or the log sequence number of XFS. ``fast``: which fast commit of a running transaction."""

    file_system: str
    number: int
    fast: int | None = None

    @classmethod
    def parse(cls, text: str) -> AskedTransaction:
        """ValueError for what names no transaction of ext4 (``48211``, ``48211.3``) or XFS (``3:1024``)."""
        if (found := _EXT4.fullmatch(text)) and int(found[1]) < _NUMBERS:
            return cls("ext4", int(found[1]), None if found[2] is None else int(found[2]))
        if (found := _XFS.fullmatch(text)) and max(int(found[1]), int(found[2])) < _NUMBERS:
            return cls("xfs", int(found[1]) << 32 | int(found[2]))
        raise ValueError(
            f"{text!r} names no transaction: ext4 has numbers (48211, or 48211.3), XFS has cycle and block (3:1024)"
        )

    def reached_by(self, name: str) -> bool:
        """Whether a log that is complete to the transaction of this name has this one as well. Numbers of ext4 wrap at 2^32.

        The fast commits of a transaction come before its own commit, and behind that of the transaction before it.
        """
        try:
            other = AskedTransaction.parse(name)
        except ValueError:
            return False
        if other.file_system != self.file_system:
            return False
        if self.file_system == "xfs":
            return other.number >= self.number
        if other.number != self.number:
            return (other.number - self.number) % _NUMBERS < _NUMBERS // 2
        return other.fast is None or (self.fast is not None and other.fast >= self.fast)
