"""What is wrong with this machine's identity: in the status, and in the log at the start and when it is read again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from pydbt.core.errors import UsageError
from pydbt.core.identity_expiry import identity_problem, why_unusable
from pydbt.network.tls import Identity, Secure

_log = logging.getLogger("pydbt")


def tell_expiry(secure: Secure | None) -> None:
    """A warning from thirty days before the end on; an error when nobody can accept this machine."""
    if secure is None:
        return
    now = datetime.now(UTC)
    if problem := why_unusable(secure.state, now):
        _log.error("%s", problem)
    elif problem := identity_problem(secure.state, now):
        _log.warning("%s", problem)


def read_again(secure: Secure) -> bool:
    """Read the identity anew, and tell of its end; False when it cannot be read, which is told."""
    try:
        secure.reload()
    except UsageError as error:
        _log.error("%s; the identity that was read before stays in use", error)
        return False
    _log.info("the identity was read again")
    tell_expiry(secure)
    return True


def require_usable(identity: Identity) -> None:
    """UsageError with the sentence that a run would meet, when nobody can accept this machine.

    A run begins all the same: writes are to be tracked, and an identity can be replaced while it runs.
    """
    if problem := why_unusable(identity.state, datetime.now(UTC)):
        raise UsageError(f"{identity.path}: {problem}")


def unusable(secure: Secure | None) -> str:
    """As ``why_unusable``, now; empty without TLS."""
    return "" if secure is None else why_unusable(secure.state, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """For the status: the end of an identity (RFC 3339), and what is wrong, from thirty days before it on."""

    expires: str
    problem: str


def identity_report(secure: Secure | None) -> IdentityReport | None:
    """Of the identity that is in use; None without TLS."""
    if secure is None:
        return None
    return IdentityReport(
        expires=secure.state.ends.isoformat(timespec="seconds"),
        problem=identity_problem(secure.state, datetime.now(UTC)),
    )
