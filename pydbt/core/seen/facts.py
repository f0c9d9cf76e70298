"""What a status tells that is worth an event when it changes: one value for each topic and subject.

The subject is the address of a secondary; empty for the volume itself, and for a replica.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from enum import StrEnum

from pydbt.core.seen.headline import divergence_words, gate_words, handover_words
from pydbt.core.seen.view import View

FOLLOWING = "following"
"""Consistent or up to date: a replica goes from one to the other with each burst of writes."""
IN_SYNC_STATE = "up-to-date"
_FIGURES = re.compile(r"\d+")
STANDING_STILL_S = 60.0
"""A synchronization that has not moved for this long stands still: waits of its phases are shorter."""


class Topic(StrEnum):
    """The words are for ``flapping`` and in ``key`` of a problem; a problem has the name of the status key."""

    MODE = "mode"
    REPLICA = "replica_state"
    CONNECTION = "connected"
    TAINTS = "taints"
    REFUSAL = "refused"
    SOURCE = "unreadable"
    TARGET = "unwritable"
    IDENTITY = "identity"
    STILL = "progress"
    VERIFYING = "verify.running"
    VERIFIED = "verify.last"
    LOG_FULL = "log_full"
    MAP = "persist_problem"
    IMAGE = "epochs.problem"
    USE = "notices"
    SERVICE = "problem"
    GATE = "gate"
    HANDOVER = "handover"
    DIVERGENCE = "divergence"
    MARK = "marks"
    SYNC = "in_sync"


PROBLEMS = (Topic.MAP, Topic.IMAGE, Topic.USE, Topic.SERVICE, Topic.GATE, Topic.HANDOVER, Topic.DIVERGENCE)

Subject = str
Facts = dict[tuple[Topic, Subject], Hashable]

USUAL: Mapping[Topic, Hashable] = {
    Topic.CONNECTION: False,
    Topic.TAINTS: (),
    Topic.REFUSAL: "",
    Topic.SOURCE: 0,
    Topic.TARGET: (0, ""),
    Topic.IDENTITY: "",
    Topic.STILL: False,
    Topic.VERIFYING: False,
    Topic.LOG_FULL: 0,
    **dict.fromkeys(PROBLEMS, ""),
}
"""Taken for what was before the first status: what is otherwise then is told. What is not here is told when it changes."""


def subjects_of(status: View) -> dict[Subject, View]:
    """The secondaries of a primary by their addresses; of a secondary its own status, without an address."""
    if status.text("role") != "primary":
        return {"": status}
    return {one.text("secondary") or "": one for one in status.parts("secondaries")}


def observed_facts(status: View) -> Facts:
    """Every fact but being in sync, which takes the time: see ``Lateness``."""
    facts: Facts = {}
    for subject, one in subjects_of(status).items():
        facts |= {(topic, subject): value for topic, value in _of_one(one)}
        facts[Topic.MARK, subject] = _newest_mark(status, subject)
    # Its figures are the time that is left, and what the clock says: they go on by themselves.
    facts[Topic.IDENTITY, ""] = _FIGURES.sub("", status.part("identity").text("problem") or "")
    if status.text("role") == "primary":
        facts[Topic.USE, ""] = "; ".join(status.texts("notices"))
        facts[Topic.GATE, ""] = gate_words(status)
    else:
        facts[Topic.SERVICE, ""] = status.text("problem") or ""
        facts[Topic.HANDOVER, ""] = handover_words(status)
        facts[Topic.DIVERGENCE, ""] = divergence_words(status)
    return facts


def _of_one(one: View) -> Iterator[tuple[Topic, Hashable]]:
    yield Topic.MODE, one.text("mode") or "unknown"
    yield Topic.REPLICA, replica_word(one.text("replica_state"))
    yield Topic.CONNECTION, one.flag("connected") is True
    yield Topic.TARGET, (one.part("unwritable").whole("bytes") or 0, one.text("target_problem") or "")
    if "secondary" not in one:
        return
    yield Topic.TAINTS, tuple(one.texts("taints"))
    yield Topic.REFUSAL, one.text("refused") or ""
    yield Topic.SOURCE, one.part("unreadable").whole("bytes") or 0
    yield Topic.STILL, (one.part("progress").number("still_seconds") or 0.0) >= STANDING_STILL_S
    yield Topic.VERIFYING, bool(one.part("verify").part("running"))
    yield Topic.VERIFIED, one.part("verify").part("last").text("ended")
    yield Topic.LOG_FULL, one.part("statistics").whole("log_full") or 0
    yield Topic.MAP, one.text("persist_problem") or ""
    yield Topic.IMAGE, one.part("epochs").text("problem") or ""


def _newest_mark(status: View, subject: Subject) -> tuple[str, str, str]:
    """Number, name and what is known of the newest mark of a secondary: ``held``, ``lost``, or empty while it is on its way."""
    newest = next(iter(status.parts("marks")), View({}))
    stands = "held" if not subject or subject in newest.texts("held_by") else ""
    if subject and subject in (*newest.texts("not_held_by"), *newest.texts("perhaps_held_by")):
        stands = "lost"
    return newest.text("number") or "", newest.text("name") or "", stands


def replica_word(state: str | None) -> str:
    """The state of a replica, where being a moment behind does not count."""
    return FOLLOWING if state in ("consistent", IN_SYNC_STATE) else state or "unknown"
