"""How often the random part of a test is repeated, and how many of its variants run."""

from __future__ import annotations

import os

# With more than one, the variants that every run of all tests leaves out run as well.
ROUNDS = int(os.environ.get("TORTURE_ROUNDS") or 1)


def short(first: int, *variants: object) -> tuple[object, ...]:
    """The first few of the variants of a test; all of them in a long run."""
    return variants if ROUNDS > 1 else variants[:first]
