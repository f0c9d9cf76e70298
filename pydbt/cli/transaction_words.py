"""The file system's transactions in words, for the status."""

from __future__ import annotations

from pydbt.core.printable import printable
from pydbt.core.seen.view import View
from pydbt.core.units import format_seconds


def transaction_words(report: View) -> str:
    """As `complete to ext4 transaction 48,211, committed 0.8 s ago; the newest is 48,213; 12 per second`; or nothing."""
    told, held = report.part("transactions"), report.part("transaction")
    if not told:
        return ""
    if told.text("unit") != "file-system":
        words = [f"one for each write request: {printable(told.text('reason') or 'unknown why')}"]
        return "; ".join([_held_words(report, held), *words] if held else words)
    words = [_held_words(report, held) if held else "unknown to which one the replica is complete"]
    if newest := told.part("newest"):
        words.append(f"the newest is {name_words(newest)}")
    if rate := told.number("per_second"):
        words.append(f"{rate:,g} per second")
    return "; ".join(words)


def _held_words(report: View, held: View) -> str:
    kind = printable(report.part("transactions").text("file_system") or "")
    words = f"complete to {kind} transaction {name_words(held)}".replace("  ", " ")
    age = held.number("age_seconds")
    if age is None or report.flag("running") is False:
        return f"{words}, committed at {printable(held.text('committed') or 'an unknown time')}"
    return f"{words}, committed {format_seconds(age)} ago"


def name_words(transaction: View) -> str:
    """``48,211``, ``48,211.3``; or ``3:1024`` as it is."""
    name = printable(transaction.text("name") or "")
    number, point, count = name.partition(".")
    return f"{int(number):,}{point}{count}" if number.isascii() and number.isdigit() else name


def replica_transaction_words(report: View) -> str:
    """Of a secondary: as ``transaction_words``, by what its primary has told; nothing where that tells none."""
    held, newest = report.part("transaction"), report.part("newest_transaction")
    if not newest and not held:
        return ""
    if not held:
        words = ["unknown to which one the replica is complete"]
    else:
        kind = printable(held.text("file_system") or "")
        age = held.number("age_seconds")
        stale = age is None or report.flag("running") is False
        when = (
            f"at {printable(held.text('committed') or 'an unknown time')}"
            if stale
            else f"{format_seconds(age or 0)} ago"
        )
        words = [f"complete to {kind} transaction {name_words(held)}, committed {when}"]
    if newest and newest.text("name") != held.text("name"):
        words.append(f"the primary's newest is {name_words(newest)}")
    return "; ".join(words)
