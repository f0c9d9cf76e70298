"""Marks in words, for the status and a promotion."""

from __future__ import annotations

from pydbt.core.printable import printable
from pydbt.core.protocol.divergence import short
from pydbt.core.seen.view import View

_SHOWN = 3


def mark_name(mark: View) -> str:
    """Its name and its moment, as `"before migration 14" (2026-01-02 03:04:05 UTC)`."""
    moment = mark.text("moment")
    return f'"{printable(mark.text("name") or "")}"' + (f" ({short(moment)})" if moment else "")


def marks_words(report: View) -> str:
    """The last marks of a primary, the newest first, with who holds each; empty without one."""
    return "; ".join(_held_words(mark) for mark in report.parts("marks")[:_SHOWN])


def _held_words(mark: View) -> str:
    held, missing, unknown = (
        ", ".join(map(printable, mark.texts(key))) for key in ("held_by", "not_held_by", "perhaps_held_by")
    )
    words = "not known to be held" if unknown else "held by nobody" if missing else "not acknowledged yet"
    words = f"held by {held}" if held else words
    words += (f", not by {missing}" if missing else "") + (f", unknown of {unknown}" if unknown else "")
    if mark.flag("before_boot"):
        words += ", but set before the primary's machine was started: perhaps not whole there since"
    return f"{mark_name(mark)} {words}{_lacks(mark)}"


def _lacks(mark: View) -> str:
    if mark.flag("synced") is False:
        return ", without sync"
    return ", not everything synced" if mark.flag("partly") else ""


def replica_marks_words(report: View) -> str:
    """The last marks that a replica holds, the newest first; empty without one."""
    return "; ".join(f"{mark_name(mark)}{_lacks(mark)}{_since(mark)}" for mark in report.parts("marks")[:_SHOWN])


def _since(mark: View) -> str:
    return ", resynchronized since by another run of a primary" if mark.flag("resynchronized") else ""
