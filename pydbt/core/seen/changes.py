"""The named changes between one status and the next: which events there are, and that a fact which flaps is no flood of them.

Each fact is compared with what was told of it last, and each has a small allowance of events. What changes more often is counted,
and is told as soon as the allowance permits: so the last event about a fact is never older than that, and never false for long.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

from pydbt.core.seen import event_names as names
from pydbt.core.seen.change_words import NamedChange, told_change
from pydbt.core.seen.facts import USUAL, Facts, Subject, Topic, observed_facts, subjects_of
from pydbt.core.seen.lateness import DEFAULT_LATE_AFTER_S, Lateness, Timeliness
from pydbt.core.seen.view import View

BURST = 6
"""This many events of one fact may follow each other at once: those of a short outage, with its resynchronization."""
REGAIN_S = 20.0
"""And one more after each of these: 180 lines in an hour at most."""


@dataclass(slots=True)
class _Told:
    """What was told of one fact, what it was when it was looked at last, and how often it changed since it was told."""

    told: Hashable
    seen: Hashable
    changes: int = 0
    allowance: float = float(BURST)
    at: float = 0.0

    def may(self, at: float) -> bool:
        self.allowance = min(self.allowance + (at - self.at) / REGAIN_S, float(BURST))
        self.at = at
        if self.allowance < 1.0:
            return False
        self.allowance -= 1.0
        return True


@dataclass(slots=True)
class Changes:
    """``look`` takes one status after another, and returns what is to be told. ``late_after_s``: see ``Lateness``."""

    late_after_s: float = DEFAULT_LATE_AFTER_S
    _known: dict[tuple[Topic, Subject], _Told] = field(default_factory=dict)
    _lateness: dict[Subject, Lateness] = field(default_factory=dict)
    _subjects: frozenset[Subject] | None = None

    def look(self, status: View, at: float) -> list[NamedChange]:
        """``at``: seconds of a clock that never goes back."""
        subjects = subjects_of(status)
        found = list(self._of_the_subjects(status, frozenset(subjects)))
        facts = observed_facts(status)
        for subject, one in subjects.items():
            lateness = self._lateness.setdefault(subject, Lateness(self.late_after_s))
            facts[Topic.SYNC, subject] = lateness.look(one, at)
        for (topic, subject), value in facts.items():
            about = subjects.get(subject, status)
            for change in self._of_a_fact(topic, subject, value, about, at):
                found.append(replace(change, figures={"secondary": subject, **change.figures}) if subject else change)
        self._forget(facts)
        return found

    def _of_the_subjects(self, status: View, subjects: frozenset[Subject]) -> Iterator[NamedChange]:
        before, self._subjects = self._subjects, subjects
        if before is None:
            mode, state = status.text("mode") or "unknown", status.text("replica_state") or "unknown"
            yield NamedChange(names.STARTED, f"started; the replica is {state}", {"mode": mode, "replica_state": state})
            return
        for name, verb, changed in (
            (names.ADDED, "was added", subjects - before),
            (names.REMOVED, "was removed", before - subjects),
        ):
            for subject in sorted(changed):
                yield NamedChange(name, f"the secondary {subject} {verb}", {"secondary": subject})

    def _of_a_fact(
        self, topic: Topic, subject: Subject, value: Hashable, about: View, at: float
    ) -> Iterator[NamedChange]:
        usual = Timeliness.UNTOLD if topic is Topic.SYNC else USUAL.get(topic, value)
        known = self._known.setdefault((topic, subject), _Told(usual, usual, at=at))
        if value != known.seen:
            known.seen, known.changes = value, known.changes + 1
        if not known.changes or not known.may(at):
            return
        times, known.changes, before, known.told = known.changes, 0, known.told, value
        if value == before:
            yield NamedChange(
                names.FLAPPING,
                f"{topic} has changed {times} times, and is as before",
                {"key": str(topic), "times": times},
            )
            return
        behind_s = self._lateness[subject].lasted_s if topic is Topic.SYNC else 0.0
        for change in told_change(topic, before, value, about, behind_s):
            yield change if times == 1 else _often(change, times)

    def _forget(self, facts: Facts) -> None:
        """What is not in the status any more, as a secondary that was removed."""
        for key in self._known.keys() - facts.keys():
            del self._known[key]
        for subject in self._lateness.keys() - {subject for _, subject in facts}:
            del self._lateness[subject]


def _often(change: NamedChange, times: int) -> NamedChange:
    """It has changed that often since it was told last."""
    return replace(
        change, words=f"{change.words} (changed {times} times)", figures={**change.figures, "changes": times}
    )
