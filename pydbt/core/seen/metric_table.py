"""Every metric of a volume that ``/metrics`` has. They are promised: docs/reference/metrics.md lists the same."""

from __future__ import annotations

from collections.abc import Callable

from pydbt.core.primary.modes import Mode
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.metric import (
    Metric,
    MetricKind,
    Scope,
    Scraped,
    Values,
    each_figure,
    each_histogram,
    each_of,
    figure,
    has_words,
    histogram,
    label_of,
    named_by,
    one_hot,
    timestamp,
    truth,
)
from pydbt.core.seen.sight import Level
from pydbt.core.units import SECTOR_BYTES

STATES_OF_A_REPLICA = ("up-to-date", "consistent", "outdated", "inconsistent")
PRIMARY_MODES = (*map(str, Mode), "armed", "demoted", "promoted")
SECONDARY_MODES = ("offline", "ready", "streaming", "staging", "direct", "restarting", "promoted")
AUDIT_VERDICTS = ("agrees", "waiting", "unavailable")
LOSSES = ("submissions", "completions", "data", "unknown_kinds", "passthrough", "missed")
_IO = ("block_io", "operations")
UNSETTLED_CAUSES = ("overlapped", "failed", "unstable", "unseen", "verified", "discarded")


def _told_by(source: Scraped, name: str) -> str | None:
    """Of a status that is old nobody knows it any more; that of a controller that has ended tells that it has."""
    return source.status.text(name) if source.live or source.status.flag("running") is False else None


def _mode(source: Scraped) -> Values:
    choices = SECONDARY_MODES if source.seen.text("role") == "secondary" else PRIMARY_MODES
    return one_hot(choices, lambda one: _told_by(one, "mode"))(source)


def _audit(source: Scraped) -> Values:
    """By the first word of the verdict, which is a sentence."""
    verdict = source.status.part("audit").text("verdict")
    words = (verdict or "").replace(":", " ").split()
    return one_hot(AUDIT_VERDICTS, lambda _: words[0])(source) if words else ()


def _of_sight(name: str) -> Callable[[Scraped], Values]:
    """A figure that the status has not, and that the dashboard knows."""
    return lambda source: figure(name)(Scraped(source.seen, source.seen, source.live))


def _info(source: Scraped) -> Values:
    identity, device = source.seen.text("id") or "", source.seen.text("device") or ""
    return (((label_of(identity), label_of(device)), 1.0),)


def _observed(source: Scraped) -> Values:
    state = source.status.part("block_io").text("state")
    return () if state is None else (((), float(state == "attached")),)


def _during(part: str, name: str) -> Callable[[Scraped], Values]:
    """A figure of a copy or verification under way; no value without one. ``still_seconds`` is 0 while it moves."""

    def read(source: Scraped) -> Values:
        progress = source.status.part("verify").part("running") if part == "verify" else source.status.part(part)
        if not progress.number("total_bytes"):
            return ()
        value = progress.number(name)
        if value is None and name == "still_seconds":
            value = 0.0
        return () if value is None else (((), value),)

    return read


def _gauge(name: str, words: str, read: Callable[[Scraped], Values], *labels: str, lasting: bool = False) -> Metric:
    return Metric(f"pydbt_{name}", MetricKind.GAUGE, Scope.VOLUME, words, read, labels, lasting)


def _count(name: str, words: str, read: Callable[[Scraped], Values], *labels: str) -> Metric:
    return Metric(f"pydbt_{name}_total", MetricKind.COUNTER, Scope.VOLUME, words, read, labels)


def _of_secondary(name: str, words: str, read: Callable[[Scraped], Values], *, lasting: bool = False) -> Metric:
    return Metric(f"pydbt_secondary_{name}", MetricKind.GAUGE, Scope.SECONDARY, words, read, (), lasting)


_STATE = (
    _gauge("volume_info", "1; its identity and device", _info, "id", "device", lasting=True),
    _gauge("up", "1 while its controller answers", lambda source: (((), float(source.live)),), lasting=True),
    _gauge("status_age_seconds", "age of the status that all else is of", _of_sight("age_seconds"), lasting=True),
    _gauge(
        "level",
        "1 for how it stands, as the dashboard shows it",
        one_hot(Level, lambda source: source.seen.text("level")),
        "level",
        lasting=True,
    ),
    _gauge("mode", "1 for its mode", _mode, "mode", lasting=True),
    _gauge(
        "replica_state",
        "1 for what the replica may be called",
        one_hot(STATES_OF_A_REPLICA, lambda source: _told_by(source, "replica_state")),
        "state",
        lasting=True,
    ),
    _gauge("generation_info", "1; the name of its content", named_by("generations", "current"), "generation"),
    _gauge("connected", "1 while the other machine is connected", truth("connected")),
    _gauge("tainted", "1 while something was written that no program saw", truth("tainted")),
    _gauge("refused", "1 while the secondary refuses the volume for good", has_words("refused")),
    _gauge("map_unsaved", "1 while the map of out-of-sync blocks cannot be saved", has_words("persist_problem")),
    _gauge("audit", "1 for the verdict of the audit", _audit, "verdict"),
    _gauge(
        "audit_margin_bytes",
        "how much could go unseen unnoticed",
        figure("audit", "margin_sectors", scale=SECTOR_BYTES),
    ),
)
_BEHIND = (
    _gauge("size_bytes", "size of the volume", lambda source: figure("size_bytes")(source) or figure("size")(source)),
    _gauge("out_of_sync_bytes", "bytes that may differ on the secondary", figure("out_of_sync_bytes")),
    _gauge("unacknowledged_bytes", "bytes streamed and not yet acknowledged", figure("unacknowledged_bytes")),
    _gauge("lag_bytes", "bytes that the secondary is behind", figure("lag_bytes")),
    _gauge("lag_seconds", "time that the secondary is behind", figure("lag_seconds")),
    _gauge(
        "last_in_sync_timestamp_seconds", "up to when the secondary has everything", timestamp("last_in_sync"), lasting=True
    ),
    _gauge("unsettled_bytes", "bytes whose content on the disk is uncertain", figure("unsettled_bytes")),
    _gauge("unreadable_bytes", "bytes of the source that cannot be read", figure("unreadable", "bytes")),
    _gauge("unwritable_bytes", "bytes of the target that cannot be written", figure("unwritable", "bytes")),
    _gauge("resync_done_bytes", "of a synchronization, bytes that are done", _during("progress", "done_bytes")),
    _gauge("resync_size_bytes", "of a synchronization, all bytes", _during("progress", "total_bytes")),
    _gauge("resync_remaining_seconds", "forecast of the time left", _during("progress", "eta_seconds")),
    _gauge("resync_still_seconds", "how long nothing has moved", _during("progress", "still_seconds")),
    _gauge("verify_done_bytes", "of a verification, bytes that are done", _during("verify", "done_bytes")),
    _gauge("verify_size_bytes", "of a verification, all bytes", _during("verify", "total_bytes")),
    _gauge(
        "last_verified_timestamp_seconds", "end of the last verification", timestamp("verify", "last", "ended"), lasting=True
    ),
    _gauge(
        "last_verified_differing_bytes", "bytes that differed in it", figure("verify", "last", "differing_bytes"),
        lasting=True,
    ),
    _gauge("identity_expires_timestamp_seconds", "end of the identity", timestamp("identity", "expires"), lasting=True),
)  # fmt: skip
_ROOM = (
    _gauge("ring_size_bytes", "kernel memory for data that is not sent yet", figure("queue", "size")),
    _gauge("ring_used_bytes", "of it, used", figure("queue", "used")),
    _gauge("log_size_bytes", "size of the transaction log", figure("log", "size")),
    _gauge("log_used_bytes", "of it, used", figure("log", "used")),
    _gauge(
        "log_active_transactions",
        "open updates: write requests and records of the file system that are not acknowledged",
        figure("log", "active_transactions"),
    ),
    _gauge("in_flight_bytes", "writes that are submitted and not completed", figure("in_flight", "bytes")),
    _gauge("journal_size_bytes", "limit of the secondary's journal", figure("journal", "size")),
    _gauge("journal_used_bytes", "of it, used", figure("journal", "used")),
    _gauge("staged_bytes", "bytes of a synchronization in the journal", figure("staged_bytes")),
    _gauge("unapplied_bytes", "bytes in the journal and not yet on the target", figure("unapplied_bytes")),
)
_COUNTS = (
    _count("written_bytes", "bytes written to the volume, discards with their length", figure("written_bytes")),
    _count("written_requests", "write requests to the volume", figure("statistics", "written_requests")),
    _count("discarded_bytes", "bytes discarded", figure("statistics", "discarded_bytes")),
    _count("sent_bytes", "bytes put on the wire", figure("sent_bytes")),
    _count("received_bytes", "bytes received by the secondary", figure("received_bytes")),
    _count("stream_requests", "writes sent in order", figure("statistics", "stream_requests")),
    _count("stream_bytes", "bytes of writes sent in order", figure("statistics", "stream_bytes")),
    _count("compared_bytes", "bytes compared by digest in synchronizations", figure("statistics", "compared_bytes")),
    _count("copied_bytes", "bytes copied because they differed", figure("statistics", "copied_bytes")),
    _count("resyncs", "completed synchronizations", figure("statistics", "resyncs")),
    _count("settled_blocks", "unsettled blocks that were settled", figure("statistics", "settled_blocks")),
    _count(
        "unsettled_blocks", "blocks that became unsettled, by cause",
        each_of("statistics", "unsettled_blocks", choices=UNSETTLED_CAUSES), "cause",
    ),
    _count("losses", "records or data that the capture could not take, by reason", each_of("losses", choices=LOSSES), "reason"),
    _count("stream_given_up", "times the stream was given up for want of room", figure("statistics", "log_full")),
    _count("left_normal", "times that mode normal was left", figure("statistics", "times_out_of_normal")),
    _count("unsynchronized_seconds", "time outside of mode normal", figure("statistics", "unsynchronized_seconds")),
    _count("audit_looks", "comparisons with the kernel's own counts", figure("audit", "looks")),
    Metric(
        "pydbt_acknowledgement_latency_seconds", MetricKind.HISTOGRAM, Scope.VOLUME,
        "from the capture of a write until it is known to be durable on the secondary",
        histogram("statistics", "acknowledgement_latency"),
    ),
)  # fmt: skip
_BLOCK_IO = (
    _gauge("block_io_observed", "1 while block I/O is observed, by the programs that the next ones are of", _observed),
    _count("block_io_requests", "I/Os of the device", each_figure(*_IO, names=OPERATIONS, inner="requests"), "operation"),
    _count("block_io_bytes", "bytes of them", each_figure(*_IO, names=OPERATIONS, inner="bytes"), "operation"),
    _count("block_io_errors", "I/Os that failed", each_figure(*_IO, names=OPERATIONS, inner="errors"), "operation"),
    Metric(
        "pydbt_block_io_latency_seconds", MetricKind.HISTOGRAM, Scope.VOLUME, "how long an I/O of the device took",
        each_histogram(*_IO, names=OPERATIONS, inner="latency", parts=PARTS), ("operation", "part"),
    ),
)  # fmt: skip
_SECONDARIES = (
    _of_secondary("connected", "1 while this secondary is connected", truth("connected")),
    _of_secondary("out_of_sync_bytes", "bytes that may differ on this secondary", figure("out_of_sync_bytes")),
    _of_secondary("lag_bytes", "bytes that this secondary is behind", figure("lag_bytes")),
    _of_secondary("lag_seconds", "time that this secondary is behind", figure("lag_seconds")),
    _of_secondary(
        "last_in_sync_timestamp_seconds",
        "up to when this secondary has everything",
        timestamp("last_in_sync"),
        lasting=True,
    ),
)

VOLUME_METRICS: tuple[Metric, ...] = (*_STATE, *_BEHIND, *_ROOM, *_COUNTS, *_BLOCK_IO, *_SECONDARIES)
