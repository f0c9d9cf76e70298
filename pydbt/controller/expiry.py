"""The end of this machine's identity: in the status, and in the log at the start and when it is read again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pydbt.core.identity_expiry import expiry_problem
from pydbt.network.tls import Secure

_log = logging.getLogger("pydbt")


def tell_expiry(secure: Secure | None) -> None:
    """A warning from thirty days before the end on."""
    if secure is not None and (problem := expiry_problem(secure.expires, datetime.now(UTC))):
        _log.warning("%s", problem)


def identity_report(secure: Secure | None) -> dict[str, str] | None:
    """For the status: the end (RFC 3339), and a sentence from thirty days before it on. None without TLS."""
    if secure is None:
        return None
    return {
        "expires": secure.expires.isoformat(timespec="seconds"),
        "problem": expiry_problem(secure.expires, datetime.now(UTC)),
    }
