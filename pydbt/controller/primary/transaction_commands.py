"""What a running primary answers about transactions: those that ended, and the one that somebody waits for."""

from __future__ import annotations

import time
from typing import Any

from pydbt.controller.primary.status import moment_of_age, transactions_report
from pydbt.controller.primary.transaction_watch import KnownTransaction
from pydbt.controller.primary.volume import Volume
from pydbt.core.calendar import time_of_ns
from pydbt.core.errors import UsageError
from pydbt.core.transactions.asked_transaction import CURRENT, AskedTransaction
from pydbt.core.transactions.transaction import TransactionState


def ended_transactions(volume: Volume, after: int) -> dict[str, Any]:
    """Those with an ordinal above ``after``, as far as they are kept, the oldest first, and what they are transactions of.

    ``done_through``, ``committed_through``: ordinals up to which every secondary holds them, and their commits have completed.
    ``oldest_kept``: those with a lower one are not kept any more.
    """
    report, watch = transactions_report(volume), volume.transactions
    told = [brain.transactions.status() for brain in volume.brains]
    held = [one.held.ordinal if one.held is not None else 0 for one in told]
    done = min(held, default=0)
    committed = max([done, *(one.newest.ordinal for one in told if one.newest is not None)])
    now = time.monotonic()
    known = [] if watch is None else watch.recent(after)
    lost: dict[int, str] = {}
    for status in told:
        lost |= status.lost
    return {
        "unit": report.unit,
        "reason": report.reason,
        "file_system": report.file_system,
        "done_through": done,
        "committed_through": committed,
        "oldest_kept": 1 if watch is None else watch.oldest_kept,
        "transactions": [_entry(one, _state(one, done, committed, lost), lost, now) for one in known],
    }


def _state(one: KnownTransaction, done: int, committed: int, lost: dict[int, str]) -> str:
    if one.state is TransactionState.ABANDONED or one.ordinal in lost:
        return "abandoned"
    if one.ordinal <= done:
        return "done"
    return "committed" if one.ordinal <= committed else "submitted"


def _entry(one: KnownTransaction, state: str, lost: dict[int, str], now: float) -> dict[str, Any]:
    submitted = moment_of_age(one.submitted_at, now)
    return {
        "ordinal": one.ordinal,
        "transaction": one.name,
        "state": state,
        "committed": submitted if one.committed_ns is None else time_of_ns(one.committed_ns),
        "submitted": submitted,
        "log_bytes": one.length_bytes,
        "changed_count": one.changed_count,
        "changed": [{"offset_bytes": offset, "length_bytes": length} for offset, length in one.changed],
        "reason": one.reason or lost.get(one.ordinal),
    }


def asked_transaction(volume: Volume, name: str) -> tuple[AskedTransaction | None, dict[str, Any]]:
    """What ``wait --transaction`` waits for, beside all writes by now, and a part of its answer. UsageError."""
    report = transactions_report(volume)
    if name == CURRENT:
        newest = report.newest
        return None, {"transaction": newest.name if newest is not None else None, "reason": report.reason}
    try:
        asked = AskedTransaction.parse(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if report.file_system is None:
        raise UsageError(
            f"this volume has no transactions to wait for ({report.reason}): use wait without --transaction"
        )
    if report.file_system != asked.file_system:
        raise UsageError(f"{name} is a transaction of {asked.file_system}, and this volume has {report.file_system}")
    return asked, {"transaction": name, "reason": ""}
