"""A recording of a trace, played again in the browser alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dashboard.test_page_safety import is_unharmed
from tests.end_to_end.test_trace import dd, objects, traced
from tests.lab.browser import Tab, keeps_the_rules
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.page_bench import hostile
from tests.lab.page_bench.recording import made_up
from tests.lab.page_bench.server import PageBench
from tests.lab.programs import command

pytestmark = pytest.mark.browser


def opened(tab: Callable[..., Tab], folder: Path, content: bytes, **options: str) -> Tab:
    (folder / "trace.io").write_bytes(content)
    shown = tab("recording", **options)
    shown.page.set_input_files("#recording-file", folder / "trace.io")
    return shown


def test_a_recording_is_played_again_and_sent_nowhere(
    bench: PageBench, tab: Callable[..., Tab], tmp_path: Path
) -> None:
    shown = opened(tab, tmp_path, made_up())
    page = shown.page
    page.wait_for_selector(".where:has-text('second 90 of 90')")
    asked = [path for path in bench.asked if "trace" in path or path.startswith("/api/volumes")]
    assert not asked
    facts = page.inner_text(".facts >> nth=0")
    assert "3\u202f600" in facts and "/dev/vdb" in facts
    row = page.locator(".figures-table tr:has(th:text-is('Writes')) td").first
    assert int(row.inner_text()) > 20  # of 40 per second most are writes
    assert page.locator("tr:has-text('/srv/base/16384/2619') .number").first.inner_text() == "2\u202f400"
    assert page.locator("tr:has-text('postgres (process 900)')").count() == 1
    page.click("text=Play 60 ×")
    page.wait_for_selector(".where:has-text('second 1'), .where:has-text('second 2'), .where:has-text('second 3')")
    page.wait_for_selector(".where:has-text('second 90 of 90')")
    keeps_the_rules(page)


def test_latencies_of_a_recording_are_those_that_it_has(tab: Callable[..., Tab], tmp_path: Path) -> None:
    page = opened(tab, tmp_path, made_up()).page
    page.wait_for_selector(".where:has-text('second 90 of 90')")
    median = page.locator("tr:has(th:text-is('Queue')) td >> nth=1").inner_text()
    assert median in (
        "8.7\u00a0µs",
        "8.7 µs",
        "9.0 µs",
        "8.9 µs",
        "9.2 µs",
    )  # each took 9 µs; a bucket is an eighth wide


def test_a_real_recording_is_played_again_with_the_figures_that_the_terminal_tells(
    tab: Callable[..., Tab], tmp_path: Path
) -> None:
    file = tmp_path / "real.io"
    with loop_device(tmp_path, 64 << 20) as disk:
        make_filesystem("ext4", disk)
        with mounted(disk, tmp_path / "mnt") as folder, traced(disk, "--summary", "--record", file) as trace:
            dd(folder / "direct", 60, "oflag=direct")
            dd(folder / "buffered <b>x", 40, "conv=fsync")
            trace.end()
    ios, summary = objects(command("trace", "--replay", file, "--json").output)
    written = sum(one["length_bytes"] for one in ios if one["operation"] == "write")
    assert written >= 100 * 65536 and summary["lost"] == 0
    page = opened(tab, tmp_path, file.read_bytes()).page
    page.wait_for_selector(".where:has-text('second ')")
    facts = page.inner_text(".facts >> nth=0")
    assert str(disk) in facts and f"{len(ios):,}".replace(",", "\u202f") in facts
    names = {one["name"] for one in ios if one["name"]}
    assert "dd" in names and page.locator("tr:has-text('dd (process')").count() >= 1
    files = {one["file"] for one in ios if one["file"]}
    assert str(folder / "buffered <b>x") in files
    for path in files:
        assert page.locator("tr", has_text=path).count() >= 1, path
    assert is_unharmed(page)


def test_a_recording_that_was_cut_off_is_shown_up_to_there(tab: Callable[..., Tab], tmp_path: Path) -> None:
    page = opened(tab, tmp_path, made_up()[:-30]).page
    page.wait_for_selector(".notice:has-text('cut off in the middle of a block')")
    page.wait_for_selector(".where:has-text('second 90 of 90')")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no recording"),
        (b"something else entirely", "no recording"),
        (b"PYDBTIO\n", "its end is missing"),
        (b"PYDBTIO\n" + b"BEGN" + b"\xff" * 12, "larger than a block may be"),
        (b"PYDBTIO\n" + b"BEGN" + (9).to_bytes(4, "little") * 2 + bytes(4) + b"123456789", "checksum"),
    ],
)
def test_a_file_that_is_no_recording_gets_a_sentence(
    tab: Callable[..., Tab], tmp_path: Path, content: bytes, words: str
) -> None:
    page = opened(tab, tmp_path, content).page
    page.wait_for_selector(f".notice:has-text('{words}')")


def test_hostile_names_in_a_recording_are_text(tab: Callable[..., Tab], tmp_path: Path) -> None:
    names = tuple(name for name in hostile.ALL if name.isascii() or "\u202e" in name)
    page = opened(tab, tmp_path, made_up(names, seconds=5), size="phone").page
    page.wait_for_selector("tr:has-text('<img src=x onerror=')")
    assert is_unharmed(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
