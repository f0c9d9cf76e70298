"""Releases, as CHANGELOG.md has them; from the newest comes the entry of the package's own changelog."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"
CONTROL = Path(__file__).resolve().parents[1] / "debian/control"
MAINTAINER = "The pydbt authors <authors@pydbt.invalid>"
"""Where there is no ``debian/control`` to take it from."""
_HEADING = re.compile(r"^## ([0-9]\S*) - (\d{4}-\d{2}-\d{2})\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Release:
    """``entries`` are the changes, a text each, in the order of the changelog."""

    version: str
    day: date
    entries: tuple[str, ...]


def newest() -> Release:
    """The newest release. ValueError when the changelog has none with a date."""
    found = _HEADING.search(CHANGELOG.read_text())
    if found is None:
        raise ValueError(f"{CHANGELOG} has no heading '## VERSION - YYYY-MM-DD'")
    version, day, text = found.groups()
    return Release(version, date.fromisoformat(day), tuple(_entries(text)))


def _entries(text: str) -> list[str]:
    """The bullets of a release; before them what stands above the first heading."""
    blocks = re.split(r"\n\s*\n|\n(?=- )", text.strip())
    plain = (" ".join(block.removeprefix("- ").split()) for block in blocks if not block.startswith("#"))
    return [re.sub(r"\[([^\]]+)\]\([^)\s]+\)", r"\1", words).replace("`", "").replace("**", "") for words in plain]


def debian_entry(release: Release) -> str:
    """deb-changelog(5), for the first package of a release. Its time is the beginning of the release's day: the same source
    makes the same entry.
    """
    lines = [f"pydbt ({release.version}-1) unstable; urgency=medium", ""]
    for entry in release.entries:
        lines += textwrap.wrap(
            entry, 78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
        )
    moment = format_datetime(datetime.combine(release.day, time(), UTC))
    return "\n".join([*lines, "", f" -- {_maintainer()}  {moment}", ""])


def _maintainer() -> str:
    """As in ``debian/control``, which lintian compares."""
    found = re.search(r"^Maintainer: (.+)$", CONTROL.read_text(), flags=re.MULTILINE) if CONTROL.exists() else None
    return found[1].strip() if found else MAINTAINER
