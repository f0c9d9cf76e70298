"""The first line of a status: whether the replica is behind, by how much, why, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime

from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes, format_seconds

UNKNOWN_AMOUNT = "an unknown amount"


def headline(report: View, now: datetime) -> str:
    """One line. ``now`` makes durations of the times in the report; a field that it lacks is left out."""
    if report.text("role") == "secondary":
        return _of_a_secondary(report)
    words = [_standing(report), *_circumstances(report, now), *problem_words(report)]
    return "; ".join(word for word in words if word)


def progress_words(progress: View) -> str:
    """``34 %, 340 MiB of 1.0 GiB, 28.0 MiB per second, 12 s left``, or nothing."""
    total = progress.whole("total_bytes")
    if not total:
        return ""
    done = progress.whole("done_bytes") or 0
    words = [f"{min(100 * done // total, 100)} %", f"{format_bytes(done)} of {format_bytes(total)}"]
    still, eta = progress.number("still_seconds"), progress.number("eta_seconds")
    if still is not None:
        return ", ".join([*words, f"standing still for {format_seconds(still)}"])
    if rate := progress.number("rate_bytes"):
        words.append(f"{format_bytes(rate)} per second")
    if eta is not None:
        words.append(f"{format_seconds(eta)} left")
    elif rate and done < total:
        words.append("no end in sight: as much is written")
    return ", ".join(words)


def _standing(report: View) -> str:
    """Up to date; or behind, with the figure."""
    mode, state = report.text("mode") or "unknown", report.text("replica_state")
    if state == "up-to-date" and mode in ("normal", "epochs"):
        return "up to date"
    named = {"refused": "REFUSED by the secondary", "stopped": "stopped", "paused": "paused"}.get(mode, "")
    if report.text("refused"):
        named = f"REFUSED by the secondary ({(report.text('refused') or '').replace('-', ' ')})"
    usable = "the replica is INCONSISTENT" if state == "inconsistent" else ""
    return ", ".join(word for word in (named, usable, _behind(report)) if word)


def _behind(report: View) -> str:
    if "out_of_sync_bytes" not in report:
        return "behind"
    size, seconds = report.number("out_of_sync_bytes"), report.number("lag_seconds")
    amount = UNKNOWN_AMOUNT if size is None else format_bytes(size)
    return f"behind by {amount}" if seconds is None else f"behind by {amount}, {format_seconds(seconds)}"


def _circumstances(report: View, now: datetime) -> list[str]:
    """The mode with its time, how far a synchronization is, and what it waits for."""
    mode = report.text("mode")
    words = [f"{mode}{of_several(report)}{_for(report.text('mode_since'), now)}" if mode else ""]
    if progress := progress_words(report.part("progress")):
        words.append(progress)
    elif mode not in ("normal", "epochs") and (rate := report.number("write_rate_bytes")):
        words.append(f"{format_bytes(rate)} per second are written")
    if waiting := report.text("waiting_for"):
        words.append(f"waiting for {waiting}")
    return words


def problem_words(report: View) -> list[str]:
    """What keeps the replica from following, or from being used, in words."""
    of_a_role = gate_words, handover_words, divergence_words, cluster_words, role_words
    words = [found for words_of in of_a_role if (found := words_of(report))]
    wanted = report.text("mode") in ("paused", "removed", "stopped") and not report.text("refused")
    if (problem := report.text("connection_problem")) and not wanted:
        words.append(problem if report.text("refused") else f"not connected: {problem}")
    if problem := unreadable_words(report.part("unreadable")):
        words.append(problem)
    if problem := unwritable_words(report.part("unwritable")):
        words.append(problem)
    if problem := report.text("persist_problem"):
        words.append(f"the map cannot be saved: {problem}")
    if problem := report.part("epochs").text("problem"):
        words.append(f"no newer image: {problem}")
    if report.flag("tainted"):
        words.append(", ".join(["TAINTED", *report.texts("taints")]))
    if (report.part("audit").text("verdict") or "").startswith("unavailable"):
        words.append("not audited: the kernel keeps no count of this device's writes")
    return [*words, *report.texts("notices")]


def gate_words(report: View) -> str:
    """What the gate has found and a person should know; nothing while a secondary is connected that did not answer then."""
    gate = report.part("gate")
    outcome, words = gate.text("outcome"), gate.text("words") or ""
    if outcome == "shut":
        return f"MUST NOT BE MOUNTED HERE: {words}; make this side the replica with 'controller demote'"
    if outcome == "silent":
        return f"not mounted, because a secondary did not answer: {words}"
    if outcome == "unheard" and not report.flag("connected"):
        return f"mounted although a secondary did not answer ({words}): if that one was promoted, unmount at once"
    return ""


def cluster_words(report: View) -> str:
    """Why the cluster does not promote or start it on this node; nothing where it does, or where there is no cluster."""
    cluster = report.part("cluster")
    words = cluster.text("words")
    return f"the cluster leaves it out here, as of {cluster.text('told') or 'unknown'}: {words}" if words else ""


def role_words(report: View) -> str:
    """That a side has another role than its file begins with, or lacks a fact for it; nothing when neither is so."""
    return report.part("role_differs").text("words") or ""


def handover_words(report: View) -> str:
    """A change of places that may have left no primary, and what to do; nothing when there is none."""
    return report.part("handover").text("words") or ""


def divergence_words(report: View) -> str:
    """What a demoted side alone has, and what a person has to decide; nothing when there is nothing of that."""
    return report.part("divergence").text("words") or ""


def unreadable_words(unreadable: View) -> str:
    """Where the source cannot be read, which the replica lacks; nothing when it can be everywhere."""
    if not (size_bytes := unreadable.number("bytes")):
        return ""
    return f"the SOURCE cannot be read {_where(unreadable)} ({format_bytes(size_bytes)})"


def unwritable_words(unwritable: View) -> str:
    """Where the secondary's target cannot be written; nothing when it can be everywhere."""
    if not (size_bytes := unwritable.number("bytes")):
        return ""
    size = format_bytes(size_bytes)
    return f"its TARGET cannot be written {_where(unwritable)} ({size}), and the replica cannot be used until it can"


def _where(bad: View) -> str:
    return ", ".join(f"at byte {place.whole('offset_bytes')}" for place in bad.parts("places"))


def of_several(report: View) -> str:
    """`` (1 of 3 secondaries)``: this many are in the mode of the volume, which is the worst of theirs."""
    secondaries = report.parts("secondaries")
    alike = sum(one.text("mode") == report.text("mode") for one in secondaries)
    return f" ({alike} of {len(secondaries)} secondaries)" if len(secondaries) > 1 else ""


def _for(since: str | None, now: datetime) -> str:
    try:
        began = datetime.fromisoformat(since or "")
        return f" for {format_seconds(max((now - began.astimezone(UTC)).total_seconds(), 0))}"
    except (ValueError, OverflowError):
        return ""


def _heard(report: View) -> str:
    """When the last primary was heard, in brackets; nothing where none was in this run."""
    primary = report.part("primary")
    if (seconds := primary.number("heard_seconds")) is None:
        return ""
    return f" ({primary.text('host') or 'it'} {'ended' if primary.flag('ended') else 'was heard'} {format_seconds(seconds)} ago)"


def _of_a_secondary(report: View) -> str:
    state, silent = report.text("replica_state") or "unknown", report.number("silent_seconds")
    words = ["up to date" if state == "up-to-date" else f"the replica is {state}", report.text("mode") or ""]
    if report.flag("connected") is False:
        words.append(
            f"no primary{_heard(report)}"
            if silent is None
            else f"nothing was heard from the primary for {format_seconds(silent)}"
        )
    problem, target_problem = report.text("problem") or "", report.text("target_problem") or ""
    # It starts again because of its target most of the time, and then one is a part of the other.
    words += [problem, "" if target_problem in problem else target_problem]
    words += [handover_words(report), divergence_words(report), cluster_words(report), role_words(report)]
    user = report.text("user")
    return (f"user {user} says: " if user else "") + "; ".join(word for word in words if word)
