"""One changed fact as an event: its name, its words and its figures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from pydbt.core.seen import event_names as names
from pydbt.core.seen.events import Event, Figure
from pydbt.core.seen.facts import PROBLEMS, Topic
from pydbt.core.seen.lateness import Timeliness
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class NamedChange:
    """An event before it has its number and its moment."""

    name: str
    words: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def as_event(self, number: int, moment: str) -> Event:
        """``moment``: RFC 3339."""
        return Event(number, moment, self.name, self.words, self.figures)


def told_change(
    topic: Topic, before: Hashable, after: Hashable, about: View, behind_s: float = 0.0
) -> Iterator[NamedChange]:
    """``about``: the status of the subject; ``behind_s``: for how long its replica has lacked something."""
    if topic is Topic.SYNC:
        yield from _sync(after, about, behind_s)
    elif topic in PROBLEMS:
        yield _problem(topic, str(before), str(after))
    elif topic is Topic.LOG_FULL:
        yield from _log_full(before, after)
    else:
        yield from _WORDS[topic](before, after, about)


def _mode(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    waiting = about.text("waiting_for")
    why = about.text("connection_problem") or (f"waiting for {waiting}" if waiting else "")
    words = f"mode {after}, before that {before}"
    yield NamedChange(
        names.MODE_CHANGED, f"{words}: {why}" if why else words, {"before": str(before), "after": str(after)}
    )


def _replica(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    figures: dict[str, Figure] = {"before": str(before), "after": about.text("replica_state") or str(after)}
    yield NamedChange(names.REPLICA_CHANGED, f"the replica is {figures['after']}, before that {before}", figures)


def _connection(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    if after:
        yield NamedChange(names.CONNECTED, "connected")
        return
    silent = about.number("silent_seconds")
    why = about.text("connection_problem")
    if why is None and silent is not None:
        why = f"nothing was heard for {format_seconds(silent)}"
    yield NamedChange(
        names.DISCONNECTED,
        f"not connected: {why}" if why else "not connected",
        {} if silent is None else {"silent_s": silent},
    )


def _taints(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    if after:
        reasons = "; ".join(about.texts("taints"))
        yield NamedChange(names.TAINTED, f"tainted: {reasons}", {"taints": reasons})
    else:
        yield NamedChange(names.TAINT_ANSWERED, "everything in use was compared: not tainted any more")


def _refusal(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    if not after:
        yield NamedChange(names.ACCEPTED, f"not refused any more ({before})", {"code": str(before)})
        return
    name = names.SPLIT_BRAIN if after == names.SPLIT_BRAIN else names.REFUSED
    yield NamedChange(name, about.text("connection_problem") or f"refused: {after}", {"code": str(after)})


def _source(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    if after:
        size = format_bytes(float(str(after)))
        yield NamedChange(
            names.DISK_ERROR, f"{size} of the source cannot be read", {"disk": "source", "bytes": int(str(after))}
        )
    else:
        yield NamedChange(names.DISK_RECOVERED, "all of the source can be read", {"disk": "source"})


def _target(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    size, problem = after if isinstance(after, tuple) else (0, "")
    if problem or size:
        words = problem or f"{format_bytes(size)} of the target cannot be written"
        yield NamedChange(names.DISK_ERROR, words, {"disk": "target", "bytes": size or None})
    else:
        yield NamedChange(names.DISK_RECOVERED, "all of the target can be written", {"disk": "target"})


def _identity(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    figures: dict[str, Figure] = {"expires": about.part("identity").text("expires")}
    if after:
        yield NamedChange(names.IDENTITY_ENDING, about.part("identity").text("problem") or str(after), figures)
    else:
        yield NamedChange(names.IDENTITY_RENEWED, "the identity of this machine can be used", figures)


def _still(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    still = about.part("progress").number("still_seconds")
    if not after or still is None:
        yield NamedChange(names.MOVING_AGAIN, "the synchronization moves again, or has ended")
        return
    waiting = about.text("waiting_for")
    words = f"the synchronization has stood still for {format_seconds(still)}"
    yield NamedChange(
        names.STANDING_STILL, f"{words}: it waits for {waiting}" if waiting else words, {"still_s": still}
    )


def _verifying(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    if after:
        total = about.part("verify").part("running").whole("total_bytes")
        yield NamedChange(names.VERIFY_STARTED, "a verification has begun", {"total_bytes": total})


def _verified(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    last = about.part("verify").part("last")
    if after is None or not last:
        return
    keys = names.NAMES[names.VERIFIED].figures
    figures: dict[str, Figure] = {key: last.whole(key) for key in keys}
    differing = last.whole("differing_bytes")
    found = "no difference" if differing == 0 else f"{format_bytes(differing or 0)} differed, and were copied"
    words = found if differing is not None else "with an unknown result"
    if unreadable := last.whole("unreadable_bytes"):
        words = f"{words}; {format_bytes(unreadable)} of the source cannot be read, and were not compared"
    yield NamedChange(names.VERIFIED, f"the verification has ended: {words}", figures)


def _mark(before: Hashable, after: Hashable, about: View) -> Iterator[NamedChange]:
    number, name, stands = after if isinstance(after, tuple) else ("", "", "")
    if number and stands == "held":
        yield NamedChange(names.MARK_HELD, f'the mark "{name}" is held', {"mark": name})
    elif number and stands == "lost":
        words = f'the stream was given up before the mark "{name}" was acknowledged'
        yield NamedChange(names.MARK_LOST, words, {"mark": name})


def _log_full(before: Hashable, after: Hashable) -> Iterator[NamedChange]:
    times = int(str(after)) - int(str(before))
    if times > 0:  # it counts from 0 again with each run, and with each secondary that is added
        yield NamedChange(names.LOG_FULL, "the log was full, and the stream was given up", {"times": times})


def _problem(topic: Topic, before: str, after: str) -> NamedChange:
    if after:
        return NamedChange(names.PROBLEM, after, {"key": str(topic)})
    return NamedChange(names.PROBLEM_ENDED, f"over: {before}", {"key": str(topic)})


def _sync(after: Hashable, about: View, behind_s: float) -> Iterator[NamedChange]:
    size = about.whole("out_of_sync_bytes")
    if after is Timeliness.IN_SYNC:
        yield NamedChange(names.IN_SYNC, "the replica has everything", {"out_of_sync_s": round(behind_s, 1)})
    elif after is Timeliness.LATE:
        amount = "an unknown amount" if size is None else format_bytes(size)
        words = f"out of sync for {format_seconds(behind_s)}, by {amount}"
        figures: dict[str, Figure] = {"out_of_sync_s": round(behind_s, 1), "out_of_sync_bytes": size}
        yield NamedChange(names.OUT_OF_SYNC, words, figures)


_WORDS: dict[Topic, Callable[[Hashable, Hashable, View], Iterator[NamedChange]]] = {
    Topic.MODE: _mode,
    Topic.REPLICA: _replica,
    Topic.CONNECTION: _connection,
    Topic.TAINTS: _taints,
    Topic.REFUSAL: _refusal,
    Topic.SOURCE: _source,
    Topic.TARGET: _target,
    Topic.IDENTITY: _identity,
    Topic.STILL: _still,
    Topic.VERIFYING: _verifying,
    Topic.VERIFIED: _verified,
    Topic.MARK: _mark,
}
