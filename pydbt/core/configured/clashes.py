"""Two volumes of one machine that cannot both run: they name the same device, state directory or address."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from pydbt.core.configured.problems import Problem

_WILDCARDS = {"0.0.0.0", "::", "*"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What one file takes for itself. Equal ``kind`` and ``identity`` are the same thing, whatever ``value`` is written.

    ``address``: host and port at which it listens; the identity tells nothing then.
    """

    file: str
    line: int
    key: str
    value: str
    kind: str
    identity: object = None
    address: tuple[str, int] | None = None


def clashes(claims: list[Claim]) -> list[Problem]:
    """A problem of each file that claims what an earlier or later one claims too; each names the others."""
    groups: dict[tuple[str, object], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[claim.kind, claim.identity if claim.address is None else claim.address[1]].append(claim)
    found = []
    for group in groups.values():
        for claim in group:
            others = [other for other in group if other is not claim and _meet(claim, other)]
            if others:
                found.append(_problem(claim, others))
    return found


def _meet(one: Claim, other: Claim) -> bool:
    if one.address is None or other.address is None:
        return True
    hosts = {one.address[0], other.address[0]}
    return len(hosts) == 1 or bool(hosts & _WILDCARDS)


def _problem(claim: Claim, others: list[Claim]) -> Problem:
    names = ", ".join(
        f"{other.key} of {other.file}{f' line {other.line}' if other.line else ''}"
        for other in sorted(others, key=lambda other: (other.file, other.line))
    )
    words = f"expected {claim.kind} that nothing else uses; it is also {names}"
    return Problem(claim.file, claim.line, claim.key, claim.value, words)
