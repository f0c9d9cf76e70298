"""The page as the real server serves it, over controllers of the test: by its link, under its policy, stale when it hangs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.test_page_views import DRAWN, VIEWS
from tests.lab.browser import Tab
from tests.lab.page_bench import hostile
from tests.lab.page_bench.heat import heat
from tests.lab.page_bench.load import io, writers
from tests.lab.page_bench.story import events, history, method
from tests.lab.page_bench.world import GIB, Made
from tests.lab.served_dashboard import Dashboard, Machine, serving

pytestmark = pytest.mark.browser


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """With a volume that answers every question, one whose controller says nothing, and one with a hostile name."""
    made, now = Made("vdz", "/dev/vdz", "here", GIB), time.time()
    machine = Machine(tmp_path / "m")
    controller = machine.add("vdz", size_bytes=GIB, block_bytes=4096)
    told = events(made, now, now)
    controller.answers = {
        "map": heat(made, 0, GIB, 1024, now, now), "io": io(made, now), "writers": writers(made, now, now),
        "history": history(made, now - 3600, now, 300, now, now, ""), "method": method(made, now, now),
        "events": {"events": told, "next": len(told), "lost": False},
        "block": {"offset": 0, "extent": None, "file": None, "why": "unknown: no file system is mounted"},
    }  # fmt: skip
    machine.add("hostile", source=hostile.MARKUP)
    listener = machine.silent("mute")
    yield machine
    listener.close()
    machine.end()


@pytest.fixture
def dashboard(machine: Machine) -> Iterator[Dashboard]:
    with serving(machine) as started:
        yield started


@pytest.fixture
def opened(chromium: Any, dashboard: Dashboard) -> Iterator[Tab]:
    """The link, opened: from then on the cookie is enough."""
    tab = Tab(chromium, dashboard.link.partition("/?")[0])
    tab.page.goto(dashboard.link)
    tab.page.wait_for_selector(".row:nth-child(3)")
    yield tab
    tab.close()


# The levels that the volume's row, or the head of its page, has had from now on.
KEEP_LEVELS = """name => {
  window.levels = [];
  const isIts = (node) => node.matches(".volume-head") || (node.matches(".row") && node.querySelector("a")?.textContent === name);
  new MutationObserver((changes) => changes.forEach(({ target }) => isIts(target) && levels.push(target.dataset.level)))
    .observe(document.body, { subtree: true, attributeFilter: ["data-level"] });
}"""


def row_of(name: str) -> str:
    return f".row:has(a:text-is('{name}'))"


def test_the_link_opens_the_page_and_leaves_no_token_in_the_address(opened: Tab) -> None:
    assert "token" not in opened.page.url
    opened.page.wait_for_selector(f"{row_of('vdz')}[data-level=good]")
    opened.page.wait_for_selector(f"{row_of('mute')}[data-level=stale]")
    assert opened.page.evaluate("window.harmed === undefined")


def test_every_view_is_drawn_of_what_the_controller_answers(opened: Tab, machine: Machine) -> None:
    path = (opened.page.get_attribute(f"{row_of('vdz')} a", "href") or "").removeprefix("#/")
    for view in VIEWS:
        opened.go(f"{path}/{view}")
        opened.page.wait_for_selector(DRAWN[view])
    asked = {one["command"]: one for one in machine.controllers["vdz"].asked}
    assert asked.keys() >= {"map", "writers", "io", "method", "events", "history"}
    assert isinstance(asked["history"]["points"], int)  # a controller refuses 600.0


def test_a_server_that_hangs_makes_everything_stale_and_goes_on_after(opened: Tab, dashboard: Dashboard) -> None:
    opened.expected = ("Failed to load resource",)  # a link that was given up
    try:
        dashboard.process.send_signal(signal.SIGSTOP)
        opened.page.wait_for_selector("#stale:not([hidden])")
        assert opened.page.locator(".row[data-level=good]").count() == 0
    finally:
        dashboard.process.send_signal(signal.SIGCONT)
    opened.page.wait_for_selector(f"{row_of('vdz')}[data-level=good]")


def test_a_server_that_ended_makes_everything_stale(opened: Tab, dashboard: Dashboard) -> None:
    opened.expected = ("Failed to load resource",)
    assert dashboard.stop() == 0
    opened.page.wait_for_selector(f"{row_of('vdz')}[data-level=stale]")


def test_a_controller_that_ended_is_stopped_and_not_good(opened: Tab, machine: Machine) -> None:
    opened.page.wait_for_selector(f"{row_of('vdz')}[data-level=good]")
    machine.controllers["vdz"].stop()
    opened.page.wait_for_selector(f"{row_of('vdz')}:not([data-level=good]):not([data-level=behind])")


@pytest.mark.parametrize("place", ["the overview", "the volume's own page"])
def test_a_controller_that_is_started_again_is_live_again_without_a_reload(
    opened: Tab, machine: Machine, place: str
) -> None:
    page, controller, standing = opened.page, machine.controllers["vdz"], row_of("vdz")
    page.wait_for_selector(f"{standing}[data-level=good]")
    if place != "the overview":
        opened.expected = ("Failed to load resource",)  # questions of the view, while nobody answers them
        opened.go(f"{(page.get_attribute(f'{standing} a', 'href') or '').removeprefix('#/')}/io")
        page.wait_for_selector(DRAWN["io"])
        standing = ".volume-head"
        page.wait_for_selector(f"{standing}[data-level=good]")
    page.evaluate("window.loadedOnce = true")
    page.evaluate(KEEP_LEVELS, "vdz")
    controller.stop()
    page.wait_for_selector(f"{standing}[data-level=stopped]")
    controller.status |= {"mode": "resynchronizing", "replica_state": "outdated", "out_of_sync_bytes": 1 << 20}
    controller.start()
    page.wait_for_selector(f"{standing}[data-level=behind]")
    controller.status |= {"mode": "normal", "replica_state": "up-to-date", "out_of_sync_bytes": 0}
    page.wait_for_selector(f"{standing}[data-level=good]")
    assert page.evaluate("window.loadedOnce") is True
    levels = page.evaluate("window.levels")
    assert "good" not in levels[levels.index("stopped") : levels.index("behind")], levels


def test_a_controller_that_hangs_is_stale_and_live_again_when_it_answers(opened: Tab, machine: Machine) -> None:
    page, controller, standing = opened.page, machine.controllers["vdz"], row_of("vdz")
    page.wait_for_selector(f"{standing}[data-level=good]")
    page.evaluate("window.loadedOnce = true")
    controller.delay_s = 30.0
    page.wait_for_selector(f"{standing}[data-level=stale]")
    controller.delay_s = 0.0
    page.wait_for_selector(f"{standing}[data-level=good]")
    assert page.evaluate("window.loadedOnce") is True
