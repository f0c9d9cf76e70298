"""When a replica will be in sync, in words: by the pace of the copy, or by what is written and what the link takes."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.primary.modes import Mode
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes, format_seconds, is_figure

_COPYING = (Mode.INITIAL_SYNC, Mode.RESYNCHRONIZING)
_STREAMING = (Mode.NORMAL,)


@dataclass(frozen=True, slots=True)
class Outlook:
    """``seconds`` None: nobody knows when, or never. ``converges`` None: nobody knows whether."""

    words: str
    seconds: float | None
    converges: bool | None


def outlook_of(report: View, wire_rate_bytes: float | None, backlog_growth_bytes: float | None = None) -> Outlook:
    """Of a primary that runs. ``wire_rate_bytes``: put on the wire per second over the last seconds, None if unknown.

    ``backlog_growth_bytes``: what a stream falls behind by per second, for long; None where it does not, or nobody knows.
    """
    if report.text("role") != "primary":
        return Outlook("", None, None)
    if report.text("mode") in _COPYING:
        return _of_a_copy(report, wire_rate_bytes)
    if report.text("mode") in _STREAMING and report.flag("connected"):
        return _of_a_stream(report, wire_rate_bytes, backlog_growth_bytes)
    return Outlook("", None, None)


def _of_a_copy(report: View, wire_rate_bytes: float | None) -> Outlook:
    progress = report.part("progress")
    total, done = progress.whole("total_bytes"), progress.whole("done_bytes")
    if not total or done is None:
        return Outlook("", None, None)
    if (still := progress.number("still_seconds")) is not None:
        return Outlook(f"standing still for {format_seconds(still)}", None, None)
    if (eta := progress.number("eta_seconds")) is not None:
        return Outlook(f"in sync in {format_seconds(eta)}", eta, True)
    rate, written = progress.number("rate_bytes"), report.number("write_rate_bytes")
    if not rate or not written or done >= total:
        return Outlook("", None, None)
    link = wire_rate_bytes or rate
    return Outlook(f"will not converge at this rate: writes {_rate(written)}, link {_rate(link)}", None, False)


def _of_a_stream(report: View, wire_rate_bytes: float | None, growth_bytes: float | None) -> Outlook:
    """What is compressed is less on the wire than what is written: that the wire carries less tells nothing by itself."""
    if report.text("replica_state") == "up-to-date":
        return Outlook("in sync", 0.0, True)
    behind, written = report.number("lag_bytes"), report.number("write_rate_bytes")
    if growth_bytes is not None and growth_bytes > 0:
        writes = "" if written is None else f", {_rate(written)} are written"
        return Outlook(f"will not converge at this rate: falls behind by {_rate(growth_bytes)}{writes}", None, False)
    if behind is None or written is None or wire_rate_bytes is None:
        return Outlook("", None, None)
    if wire_rate_bytes > written:
        seconds = behind / (wire_rate_bytes - written)
        if not is_figure(seconds):
            return Outlook("", None, None)
        return Outlook(f"in sync in {format_seconds(seconds)}", seconds, True)
    return Outlook("", None, None)


def _rate(rate_bytes: float) -> str:
    return f"{format_bytes(rate_bytes)}/s"
