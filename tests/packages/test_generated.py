"""Files that a package adds to the program are made by one command, the same each time, with the program's libraries alone."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, date
from email.utils import parsedate_to_datetime
from pathlib import Path

from pydbt.version import VERSION
from tests.lab.programs import ROOT
from tests.packages.conftest import GENERATED, contents

sys.path.append(str(ROOT / "packaging"))
from generate.release import Release, debian_entry, newest


def test_the_same_source_makes_the_same_files_also_over_those_that_are_there(generated: Path) -> None:
    before = contents(generated)
    words = [sys.executable, GENERATED, generated]
    subprocess.run(words, check=True, timeout=240, env={"SOURCE_DATE_EPOCH": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo"})
    assert contents(generated) == before
    assert {
        "bash/controller",
        "bash/pydbt",
        "zsh/_controller",
        "fish/controller.fish",
        "fish/pydbt.fish",
    } <= before.keys()


def test_wrong_usage_is_told() -> None:
    for arguments in ([], ["--nonsense"], ["a", "b"]):
        done = subprocess.run([sys.executable, GENERATED, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and "FOLDER" in done.stderr and not done.stdout


def test_the_entry_of_debians_changelog_is_the_newest_release() -> None:
    text = debian_entry(newest())
    head, *changes, end = text.strip("\n").splitlines()
    assert head == f"pydbt ({VERSION}-1) unstable; urgency=medium"
    found = re.fullmatch(r" -- ([^<>]+ <[^<> ]+@[^<> ]+>)  (.+)", end)
    assert found and text.endswith("\n")
    moment = parsedate_to_datetime(found[2])
    assert f"## {VERSION} - {moment.date()}" in (ROOT / "CHANGELOG.md").read_text()
    assert moment.strftime("%a, %d %b %Y %H:%M:%S +0000") == found[2], "the day of the week is that of the date"
    assert changes[0] == changes[-1] == "" and "  * " in changes[1]
    for line in changes[1:-1]:
        assert line.startswith(("  * ", "    ")) and len(line) <= 80 and line == line.rstrip(), line


def test_a_change_of_several_lines_stays_one_entry() -> None:
    text = debian_entry(Release("1.2", date(2026, 2, 3), ("word " * 40, "two")))
    assert text.count("  * ") == 2 and "  * two\n\n -- " in text and text.endswith("Tue, 03 Feb 2026 00:00:00 +0000\n")
    assert parsedate_to_datetime("Tue, 03 Feb 2026 00:00:00 +0000").tzinfo is UTC
