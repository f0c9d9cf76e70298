"""What the gate of a volume does when a secondary does not answer, as the volume's file says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_WAIT_S = 60.0
LONGEST_GATE_WAIT_S = 86_400.0
"""A boot that waits for more than a day is no boot."""
_WAIT = re.compile(r"wait ([0-9]+(?:\.[0-9]+)?)([smh]?)(?:,? then (mount|refuse))?", re.ASCII)
_SECONDS_OF = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class OnUnreachable:
    """What is done when a secondary does not answer: wait for it for ``wait_s``; after that mount, or ``refuses``."""

    wait_s: float = DEFAULT_WAIT_S
    refuses: bool = False

    @classmethod
    def parse(cls, text: str) -> OnUnreachable:
        """Of ``wait 60s``, ``wait 60s, then refuse``, ``mount`` or ``refuse``. ValueError."""
        words = " ".join(text.split())
        if words in ("mount", "refuse"):
            return cls(0.0, refuses=words == "refuse")
        found = _WAIT.fullmatch(words)
        wait_s = float(found[1]) * _SECONDS_OF[found[2]] if found else -1.0
        if not 0 <= wait_s <= LONGEST_GATE_WAIT_S:
            raise ValueError(
                f"{text!r} is none of 'wait TIME', 'wait TIME, then refuse', 'mount' and 'refuse', with a TIME of at most 24h, "
                "as in 'wait 60s'"
            )
        return cls(wait_s, refuses=found is not None and found[3] == "refuse")


WAIT_THEN_MOUNT = OnUnreachable()
"""Without a word in the volume's file."""
