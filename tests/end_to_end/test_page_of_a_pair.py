"""The page of a real pair, at four sizes: under load, cut off, in a resynchronization, silent, stopped, and started again.

The truth is the test's own, as in ``test_sampled_status``: it knows what was written since nothing can reach the secondary.
What each page shows is noted five times per second by the page itself, and compared with that.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.seen.sight import Asked, words_of
from pydbt.core.units import GIB, KIB, MIB
from tests.end_to_end.test_dashboard import dashboard
from tests.end_to_end.test_sampled_status import BLOCK, Apart, Truth, Write
from tests.lab.browser import SIZES, Tab, browser, keeps_the_rules
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.load import FileStress, load
from tests.lab.patience import until
from tests.lab.programs import Status, command
from tests.lab.raw import DirectWriter

SIZE = 192 * MIB
FILE_BYTES = 64 * MIB
PIECE = 64 * KIB
# What the page showed may be this old, by what is promised: five seconds of a controller, and three of the server.
OLD_S = 8.0
OUTAGE_S = OLD_S + 4
SLOW = 512 * KIB  # per second: the resynchronization lasts as long as a look at all sizes, also on a busy machine
UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
# What there is once a view has its first answer.
DRAWN = {
    "summary": ".plot canvas",
    "map": "[data-kind=insync] .number:not(:empty)",
    "writers": ".writers tbody tr",
    "io": ".figures-table tbody tr",
    "method": ".figure-drawing",
    "history": ".plot canvas",
}
NOTE = """window.looks = [];
setInterval(() => {
  const head = document.querySelector(".volume-head:not([hidden])");
  if (!head?.dataset.level) return;
  const out = Array.from(head.querySelectorAll(".figures div")).find(one => one.firstElementChild.textContent === "Out of sync");
  looks.push([Date.now() / 1000, head.dataset.level, head.querySelector(".words").dataset.told ?? "",
              out?.lastElementChild.textContent ?? ""]);
}, 200);"""
STANDING = """() => ({badge: document.querySelector(".volume-head .badge").textContent,
words: document.querySelector(".volume-head .words").dataset.told ?? "",
facts: Object.fromEntries(Array.from(document.querySelectorAll(".view .facts div"),
                                     one => [one.firstElementChild.textContent, one.lastElementChild.textContent]))})"""


@dataclass(frozen=True)
class Look:
    """What a page showed at a moment (of time.monotonic)."""

    at: float
    level: str
    words: str
    out_of_sync: str


def bytes_of(text: str) -> float | None:
    """Of ``12.3 MiB``; None for *unknown*."""
    found = re.fullmatch(r"([\d.]+)\s(B|[KMG]iB)", text)
    return float(found[1]) * UNITS[found[2]] if found else None


def without_figures(words: str) -> str:
    """The sentence: sizes, rates and times differ from one moment to the next."""
    return re.sub(r"(\d[\d.,]*\s?(%|ms\b|s\b|min\b|h\b|d\b|[KMGT]?i?B\b)?\s?)+", "# ", words)


def complaints(truth: Truth, looks: list[Look]) -> list[str]:
    """Each look that was better than the truth of some seconds before."""
    wrong = []
    for look in looks:
        old = [one for one in truth.missing(look.at) if one.completed < look.at - OLD_S]
        if not old:
            continue
        if look.level == "good" or (look.level != "stale" and look.words.startswith("up to date")):
            wrong.append(f"{look.level}: {look.words}, and a write is missing for {look.at - old[0].completed:.1f} s")
        told, least = bytes_of(look.out_of_sync), BLOCK * len({one.block for one in old})
        if look.level in ("behind", "bad") and told is not None and told < 0.94 * least:  # it has three figures
            wrong.append(f"{look.out_of_sync} out of sync, and at least {least} bytes are")
    return wrong


def told_by_the_command(both: Cluster) -> Status:
    """``controller status --json``."""
    outcome = command("status", "--state", both.primary_state, "--json")
    told: dict[str, Any] = json.loads(outcome.output)
    return told


def is_green(status: Status) -> bool:
    return (
        status["running"] is True
        and status["mode"] == "normal"
        and status["connected"] is True
        and status["replica_state"] == "up-to-date"
        and not status["tainted"]
    )


@dataclass
class Writing:
    """Direct writes to the blocks of one file, each of which is noted."""

    file: Path
    truth: Truth
    chance: random.Random

    def __post_init__(self) -> None:
        self._writer = DirectWriter(self.file, private=True)
        self._lock = threading.Lock()  # its memory is one

    def close(self) -> None:
        self._writer.close()

    def put(self, block: int, size: int = BLOCK) -> None:
        with self._lock:
            submitted = time.monotonic()
            self._writer.put(block * BLOCK, self.chance.randbytes(size))
            self.truth.writes.append(Write(block, submitted, time.monotonic()))

    def anywhere(self) -> None:
        self.put(self.chance.randrange(FILE_BYTES // BLOCK))

    def everywhere(self) -> None:
        for place in range(0, FILE_BYTES, PIECE):
            self.put(place // BLOCK, PIECE)


@dataclass
class Pages:
    """A tab of each size, on the page of one volume. ``ids``: of the volume, and of its replica."""

    both: Cluster
    tabs: dict[str, Tab]
    ids: tuple[str, str]
    looks: list[Look] = field(default_factory=list)

    def see(self, state: str, *views: str, green: bool) -> None:
        """At each size: the overview and these views, each by axe's rules and within the width of the screen."""
        for size, tab in self.tabs.items():
            tab.go()
            self._until_the_rows_are(green, tab)
            self._is_sound(tab, f"{state}, {size}, overview")
            for view in views:
                tab.go(f"volume/{self.ids[0]}/{view}")
                tab.page.wait_for_selector(DRAWN[view])
                until(lambda tab=tab: self._agrees(tab, green), f"{state}, {size}: the page says what the command says")
                self._is_sound(tab, f"{state}, {size}, {view}")
        self.take()

    def until_each(self, selector: str) -> None:
        for tab in self.tabs.values():
            tab.page.wait_for_selector(selector)

    def take(self) -> None:
        """What the pages have noted so far."""
        to_monotonic = time.monotonic() - time.time()
        for tab in self.tabs.values():
            for at, level, words, out_of_sync in tab.page.evaluate("looks.splice(0)"):
                self.looks.append(Look(at + to_monotonic, level, words, out_of_sync))

    def _until_the_rows_are(self, green: bool, tab: Tab) -> None:
        for identity in self.ids:
            row = f".row:has(a[href*='{identity}'])"
            tab.page.wait_for_selector(f"{row}[data-level=good]" if green else f"{row}:not([data-level=good])")

    def _is_sound(self, tab: Tab, where: str) -> None:
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where
        keeps_the_rules(tab.page)

    def _agrees(self, tab: Tab, green: bool) -> bool:
        """The page shows no other state than the command, asked before it or after it, and none that is better."""
        before = told_by_the_command(self.both)
        shown = tab.page.evaluate(STANDING)
        told = (before, told_by_the_command(self.both))
        is_good = shown["badge"].startswith("Good")
        assert not is_good or green or any(map(is_green, told)), (shown, told)
        now = datetime.now(UTC)
        sentences = [without_figures(words_of(Asked(one, 0.0), now)) for one in told]
        facts = shown["facts"]
        connected = {True: "yes", False: "no"}
        return (
            is_good == green
            and any(without_figures(shown["words"]).startswith(one) for one in sentences)
            and (
                "Mode" not in facts
                or any(facts["Mode"].split(",")[0] == (one.get("mode") or "unknown") for one in told)
            )
            and (
                "Replica" not in facts
                or any(facts["Replica"] == (one.get("replica_state") or "unknown") for one in told)
            )
            and (
                "Connected" not in facts
                or any(facts["Connected"] == connected.get(one.get("connected"), "unknown") for one in told)
            )
        )


@contextlib.contextmanager
def opened(both: Cluster, folder: Path) -> Iterator[Pages]:
    """Real tabs on a real dashboard."""
    with dashboard(folder) as (_, ask, link), browser() as chromium, contextlib.ExitStack() as stack:
        for place in (both.primary_state, both.secondary_state):
            until(lambda place=place: ask(place).get("level") == "good", "it is seen, and good")
        ids = ask(both.primary_state)["id"], ask(both.secondary_state)["id"]
        tabs = {}
        for size in SIZES:
            tab = Tab(chromium, link.partition("/?")[0], size)
            stack.callback(tab.close)
            tab.expected = ("Failed to load resource",)  # who does not run answers no question
            tab.page.add_init_script(NOTE)
            tab.page.goto(link)
            tab.page.wait_for_selector(".row")
            tabs[size] = tab
        yield Pages(both, tabs, ids)


@contextlib.contextmanager
def nothing_arrives(truth: Truth) -> Iterator[None]:
    """From here on, to the end of it."""
    truth.apart.append(Apart(time.monotonic()))
    yield
    truth.apart[-1].until = time.monotonic()


@pytest.mark.browser
@pytest.mark.timeout(2400)
def test_no_page_of_a_pair_is_better_than_the_truth_whatever_happens_to_it(
    tmp_path: Path, chance: random.Random
) -> None:
    truth = Truth()
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device)
        with (
            mounted(device, tmp_path / "mounted") as place,
            cluster(tmp_path / "c", device, wired=True) as both,
        ):
            (place / "file").write_bytes(chance.randbytes(FILE_BYTES))
            both.start()
            both.wait()
            with contextlib.closing(Writing(place / "file", truth, chance)) as writing, opened(both, tmp_path) as pages:
                with load() as running:
                    running.add(writing.anywhere, 0.05)
                    running.add(FileStress(place / "stress", chance.getrandbits(32), 64 * KIB), 0.5)
                    all_states(both, pages, writing)
                both.wait()
                pages.see("at rest", "summary", green=True)
    print(f"{len(truth.writes)} writes, {len(pages.looks)} looks")
    late = [look for look in pages.looks if any(one.completed < look.at - OLD_S for one in truth.missing(look.at))]
    assert {look.level for look in late} >= {"bad", "stale", "stopped"}, (
        "each state was looked at for longer than it may be old"
    )
    assert complaints(truth, pages.looks) == []


def all_states(both: Cluster, pages: Pages, writing: Writing) -> None:
    truth = writing.truth
    pages.see("under load", "summary", "io", "writers", green=True)
    both.wire.cut()
    with nothing_arrives(truth):
        writing.everywhere()
        both.until_mode("unsynchronized")
        pages.see("cut off", "summary", "map", green=False)
        time.sleep(OUTAGE_S)
        pages.take()
    both.wire.throttle(SLOW)
    both.wire.mend()
    both.until_mode("resynchronizing")
    pages.see("in a resynchronization", "summary", "method", green=False)
    assert told_by_the_command(both)["mode"] == "resynchronizing", "it ended too early to be looked at"
    both.wire.unthrottle()
    both.until_mode("normal")
    pages.see("in sync again", "summary", "history", green=True)
    both.primary.freeze()
    with nothing_arrives(truth):
        pages.until_each(".volume-head[data-level=stale]")
        pages.until_each(".view[data-stale] .view-head .badge:visible")
        time.sleep(OUTAGE_S)
        pages.take()
    both.primary.thaw()
    both.until_mode("normal")
    pages.see("awake again", "summary", green=True)
    assert both.primary.terminate() == 0
    with nothing_arrives(truth):
        pages.see("stopped", "summary", green=False)
        pages.until_each(".volume-head .badge:has-text('Stopped, stale')")
        time.sleep(OUTAGE_S)
        pages.take()
    both.start_primary()
    both.until_mode("normal")
    pages.see("started again", "history", "summary", green=True)
    for tab in pages.tabs.values():
        tab.go(f"volume/{pages.ids[0]}/history")
        tab.page.wait_for_selector(".events li:has(strong:text-is('restart')) >> nth=1")


def test_a_page_that_is_better_than_the_truth_is_noticed() -> None:
    truth = Truth([Write(7, 10.0, 10.1), Write(9, 10.4, 10.5)], [Apart(9.0, 60.0)])
    assert (
        complaints(truth, [Look(12.0, "good", "up to date", "0\u00a0B"), Look(70.0, "good", "up to date", "0\u00a0B")])
        == []
    )
    assert (
        complaints(truth, [Look(30.0, "bad", "behind by 8 KiB", "8.0\u00a0KiB"), Look(30.0, "stale", "", "unknown")])
        == []
    )
    assert len(complaints(truth, [Look(30.0, "good", "up to date", "unknown")])) == 1
    assert len(complaints(truth, [Look(30.0, "behind", "up to date", "8.0\u00a0KiB")])) == 1
    assert len(complaints(truth, [Look(30.0, "behind", "behind by 4 KiB", "4.0\u00a0KiB")])) == 1
    assert without_figures("behind by 1.5 MiB, 1 min 3 s; normal for 12 s") == without_figures(
        "behind by 4 KiB, 2.5 s; normal for 1 h"
    )
