"""Several secondaries in one report: never better than the worst of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from math import inf

from pydbt.controller.primary.report import (
    ProgressReport,
    SecondaryReport,
    TransactionReport,
    VerifyReport,
    WriteIntentReport,
)
from pydbt.core.primary.acknowledgement_latency import latencies_together
from pydbt.core.primary.statistics import Figures, UnsettledFigures
from pydbt.core.primary.verifier import VerifyProgress

# From the best to the worst.
MODES = (
    "normal",
    "epochs",
    "resynchronizing",
    "initial-sync",
    "unsynchronized",
    "paused",
    "refused",
    "removed",
    "stopped",
)
_LARGEST = ("written_requests", "discarded_bytes", "out_of_sync_max_bytes", "unsynchronized_seconds")
_ADDED = {field.name for field in fields(Figures)} - {*_LARGEST, "unsettled_blocks", "acknowledgement_latency"}
REPLICA_STATES = ("up-to-date", "consistent", "outdated", "inconsistent")


def combined(secondaries: list[SecondaryReport]) -> SecondaryReport:
    """All of them in one; a single one is itself."""
    if len(secondaries) == 1:
        return secondaries[0]
    worst = max(secondaries, key=lambda one: (MODES.index(one.mode), inf if one.lag_bytes is None else one.lag_bytes))
    behind = max(secondaries, key=lambda one: one.sequence.submitted - one.sequence.acknowledged)
    lags = [one.lag_seconds for one in secondaries if one.lag_seconds is not None]
    times = [one.last_in_sync for one in secondaries if one.last_in_sync is not None]
    return SecondaryReport(
        secondary=", ".join(one.secondary for one in secondaries),
        connected=all(one.connected for one in secondaries),
        connection_problem=_named((one.secondary, one.connection_problem) for one in secondaries),
        refused=next((one.refused for one in secondaries if one.refused), ""),
        mode=worst.mode,
        mode_since=worst.mode_since,
        phase=worst.phase,
        waiting_for=worst.waiting_for,
        replica_state=max((one.replica_state for one in secondaries), key=REPLICA_STATES.index),
        tainted=any(one.tainted for one in secondaries),
        taints=tuple(dict.fromkeys(reason for one in secondaries for reason in one.taints)),
        verify=_verify([one.verify for one in secondaries]),
        write_intent=_write_intent([one.write_intent for one in secondaries]),
        assumed_in_sync=any(one.assumed_in_sync for one in secondaries),
        sequence=behind.sequence,
        transaction=_oldest([one.transaction for one in secondaries]),
        out_of_sync_bytes=largest(one.out_of_sync_bytes for one in secondaries),
        unacknowledged_bytes=largest(one.unacknowledged_bytes for one in secondaries),
        unsettled_bytes=max(one.unsettled_bytes for one in secondaries),
        unreadable=max((one.unreadable for one in secondaries), key=lambda unreadable: unreadable.bytes),
        unwritable=max((one.unwritable for one in secondaries), key=lambda unwritable: unwritable.bytes),
        lag_bytes=largest(one.lag_bytes for one in secondaries),
        lag_seconds=max(lags) if len(lags) == len(secondaries) else None,
        last_in_sync=min(times) if len(times) == len(secondaries) else None,
        sent_bytes=sum(one.sent_bytes for one in secondaries),
        log=max((one.log for one in secondaries), key=lambda log: log.used),
        progress=_progress([one.progress for one in secondaries]),
        epochs=None,  # a volume that is replicated by images has one secondary
        persist_problem=_named((one.secondary, one.persist_problem) for one in secondaries),
        generations=worst.generations,
        statistics=_added([one.statistics for one in secondaries]),
    )


def lacking_at_most(secondaries: list[SecondaryReport], size_bytes: int) -> tuple[int | None, int | None]:
    """What some secondary has not got, and what of it is merely on its way, without a look at the maps: blocks that several lack
    count for each of them, so that neither it nor the rest of it is too small. Exact for a single secondary."""
    lacking = [(one.out_of_sync_bytes, one.unacknowledged_bytes) for one in secondaries]
    known = [(size, size - moving) for size, moving in lacking if size is not None and moving is not None]
    if len(known) < len(lacking):
        return None, None
    all_of_it, lasting = (min(sum(sizes), size_bytes) for sizes in zip(*known, strict=True))
    return all_of_it, all_of_it - lasting


def largest(sizes: Iterable[int | None]) -> int | None:
    """None as soon as one of them is unknown."""
    known = list(sizes)
    return None if None in known else max(size for size in known if size is not None)


def _oldest(held: list[TransactionReport | None]) -> TransactionReport | None:
    """Every secondary is complete to this one; None as soon as that of one is unknown, or which of them is older."""
    known = [one for one in held if one is not None]
    if not known or len(known) < len(held):
        return None
    ages = [one.age_seconds for one in known]
    if None in ages:
        return known[0] if len({one.name for one in known}) == 1 else None
    return max(known, key=lambda one: one.age_seconds or 0.0)


def _named(problems: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{secondary}: {problem}" for secondary, problem in problems if problem)


def _progress(parts: list[ProgressReport]) -> ProgressReport:
    """The end is known when that of each is; it stands still as long as the one that does so longest."""
    under_way = [part for part in parts if part.total_bytes]
    etas = [part.eta_seconds for part in under_way if part.eta_seconds is not None]
    still = [part.still_seconds for part in under_way if part.still_seconds is not None]
    return ProgressReport(
        sum(part.done_bytes for part in parts),
        sum(part.total_bytes for part in parts),
        sum(part.rate_bytes for part in parts),
        max(etas) if etas and len(etas) == len(under_way) else None,
        max(still, default=None),
    )


def _verify(reports: list[VerifyReport]) -> VerifyReport:
    """All that run as one; of those that ended the one that found most, then the latest; the rest that ends first."""
    running = [report.running for report in reports if report.running is not None]
    last = [report.last for report in reports if report.last is not None]
    rests = [report.rest for report in reports if report.rest is not None]
    return VerifyReport(
        VerifyProgress(
            any(one.repair for one in running),
            sum(one.total_bytes for one in running),
            sum(one.done_bytes for one in running),
            sum(one.differing_bytes for one in running),
            sum(one.filled_bytes for one in running),
        )
        if running
        else None,
        max(last, key=lambda one: (one.differing_bytes, one.ended), default=None),
        min(rests, key=lambda one: one.until, default=None),
    )


def _write_intent(reports: list[WriteIntentReport | None]) -> WriteIntentReport | None:
    """The era that bounds least, and the largest comparison that one bounded."""
    known = [report for report in reports if report is not None]
    if not known:
        return None
    least = min(known, key=lambda report: report.era or 0)
    compared = [report.compared for report in known if report.compared is not None]
    largest = max(compared, key=lambda one: one.bytes, default=None)
    return WriteIntentReport(least.era, least.since, largest, least.problem)


def _added(parts: list[Figures]) -> Figures:
    """Counters of all secondaries: sums; but the largest of writes to the volume, of times and of worst cases."""
    causes = [asdict(part.unsettled_blocks) for part in parts]
    return Figures(
        **{key: sum(getattr(part, key) for part in parts) for key in _ADDED},
        **{key: max(getattr(part, key) for part in parts) for key in _LARGEST},
        unsettled_blocks=UnsettledFigures(**{cause: sum(one[cause] for one in causes) for cause in causes[0]}),
        acknowledgement_latency=latencies_together(part.acknowledgement_latency for part in parts),
    )
