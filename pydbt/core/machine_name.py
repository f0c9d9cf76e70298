"""Names of machines in identities: each is a file beside the authority's own, and the common name of a certificate."""

from __future__ import annotations

import re

MAX_LENGTH = 63
"""Of a common name 64 (X.509, ub-common-name), of a label of a DNS name, which it is too, 63 (RFC 1035, 2.3.4)."""
RESERVED = frozenset({"authority", "revoked"})
"""Names of files beside the identities."""
_STRANGE = re.compile(r"[^A-Za-z0-9._-]")
_EXPECTED = (
    f"use 1 to {MAX_LENGTH} letters (a to z, A to Z), digits, dots, dashes and underscores, and begin with a letter or "
    "digit"
)


def name_problem(name: str) -> str:
    """The reason why a machine cannot have this name, as a sentence with what to do; empty when it can."""
    wrong = _wrong(name)
    if not wrong:
        return ""
    shown = repr(name)
    if len(shown) > MAX_LENGTH + 2:  # escapes count: a character may be ten of them
        shown = f"{shown[:22]}..."
    return f"{shown} is no name for a machine, because {wrong}"


def _wrong(name: str) -> str:
    if not name:
        return f"it is empty: {_EXPECTED}"
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters: {_EXPECTED}"
    if strange := _STRANGE.search(name):
        return f"it has {strange[0]!r} in it: {_EXPECTED}"
    if name[0] in "._-":
        return f"it begins with {name[0]!r}: {_EXPECTED}"
    if name.lower() in RESERVED:
        return f"files of the authority are called {name.lower()}: choose another name"
    return ""
