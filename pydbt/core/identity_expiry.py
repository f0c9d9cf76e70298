"""How long an identity holds: told thirty days ahead, because it fails at the next reconnect, which may be the worst moment."""

from __future__ import annotations

from datetime import datetime, timedelta

WARN_BEFORE = timedelta(days=30)


def expiry_problem(expires: datetime, now: datetime) -> str:
    """A sentence for the operator from thirty days before the end on; empty while there is time."""
    left = expires - now
    when = expires.isoformat(timespec="seconds")
    advice = "issue it again with 'controller pki issue --replace', copy it here, and send this process SIGHUP"
    if left <= timedelta(0):
        return f"this machine's identity expired at {when}: no connection can be made any more; {advice}"
    if left <= WARN_BEFORE:
        return f"this machine's identity expires at {when}, in {_words(left)}: {advice}"
    return ""


def _words(left: timedelta) -> str:
    hours = int(left.total_seconds() // 3600)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} hours" if hours else "less than an hour"
