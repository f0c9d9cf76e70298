"""Who writes, in the words of a status."""

from __future__ import annotations

from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes


def writers_words(attribution: View) -> str:
    """``tar (backup.service) 12.0 MiB per second, journal ...``; nothing while it is not watched, or nobody writes."""
    if problem := attribution.text("problem"):
        return f"unknown: {problem}"
    writing = [one for one in attribution.parts("top") if one.number("written_rate_bytes")]
    return ", ".join(_words(one) for one in writing)


def _words(writer: View) -> str:
    group = writer.text("group")
    who = f"{writer.text('name')} ({group})" if group else writer.text("name")
    return f"{who} {format_bytes(writer.number('written_rate_bytes') or 0)} per second"
