"""Whether this machine's identity can be used, and for how long: told thirty days ahead.

It fails at the next reconnect, which may be the worst moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

WARN_BEFORE = timedelta(days=30)
_AGAIN = "issue it again with 'controller pki issue --replace', copy it here, and send its controllers SIGHUP"
_RENEW = (
    "renew it and the identities of all machines with 'controller pki renew', copy each to its machine, and send the controllers "
    "SIGHUP"
)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The time in which a certificate is valid."""

    begins: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class IdentityState:
    """What decides whether others accept this machine. ``is_revoked``: its key is in the list of revoked keys beside it."""

    own: Lifetime
    authority: Lifetime
    is_revoked: bool = False

    @property
    def ends(self) -> datetime:
        """An identity outlives its authority for nobody."""
        return min(self.own.ends, self.authority.ends)


def why_unusable(identity: IdentityState, now: datetime) -> str:
    """The reason why nobody who has the same clock and list accepts this machine, as a sentence; empty when it is accepted."""
    begins = max(identity.own.begins, identity.authority.begins)
    if identity.is_revoked:
        return f"the key of this machine's identity is in the list of revoked keys beside it: {_AGAIN}"
    if now < begins:
        return (
            f"this machine's identity is not valid before {_when(begins)}, and this machine's clock says {_when(now)}: compare "
            "the clocks of this machine and of the one that issued it"
        )
    if identity.ends <= now:
        subject, advice = _first_to_end(identity)
        return (
            f"{subject} expired at {_when(identity.ends)}: no connection can be made any more; {advice} (this machine's clock "
            f"says {_when(now)})"
        )
    return ""


def identity_problem(identity: IdentityState, now: datetime) -> str:
    """``why_unusable``, and before that a sentence from thirty days before the end on; empty while there is time."""
    if found := why_unusable(identity, now):
        return found
    left = identity.ends - now
    if left <= WARN_BEFORE:
        subject, advice = _first_to_end(identity)
        return f"{subject} expires at {_when(identity.ends)}, in {_words(left)}: {advice}"
    return ""


def _first_to_end(identity: IdentityState) -> tuple[str, str]:
    if identity.authority.ends <= identity.own.ends:
        return "the authority of this machine's identity", _RENEW
    return "this machine's identity", _AGAIN


def _when(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _words(left: timedelta) -> str:
    hours = int(left.total_seconds() // 3600)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} hours" if hours else "less than an hour"
