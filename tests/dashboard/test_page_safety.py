"""What the page never does: take a text for markup, call old figures good, or show a person less than it shows others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from tests.dashboard.test_page_views import DRAWN, VIEWS, path_of
from tests.lab.browser import Tab, keeps_the_rules
from tests.lab.page_bench import hostile
from tests.lab.page_bench.server import PageBench
from tests.lab.page_bench.world import volumes

pytestmark = pytest.mark.browser


@pytest.fixture
def bench() -> Iterator[PageBench]:
    """With hostile names everywhere that a machine has names."""
    with PageBench(volumes(hostile.ALL)) as made:
        made.file = hostile.MARKUP
        made.names = hostile.ALL
        yield made


def is_unharmed(page: Page) -> bool:
    return bool(page.evaluate("window.harmed === undefined && !document.querySelector('main img, main script')"))


def test_hostile_names_are_text_in_the_overview(tab: Callable[..., Tab]) -> None:
    page = tab().page
    page.wait_for_selector(".row:nth-child(28)")
    shown = page.eval_on_selector_all(".cell.volume a", "links => links.map(link => link.textContent)")
    assert any("<img src=x onerror=" in name for name in shown)
    assert any("\\x1b[31mred\\x07\\x00end\\x7f" in name for name in shown)  # control characters are seen
    assert any("\\u202efdp.exe\\u2066\\u200b" in name for name in shown)
    assert any("\\ud800" in name for name in shown)
    assert max(map(len, shown)) <= 60
    assert is_unharmed(page)


@pytest.mark.parametrize("view", VIEWS)
def test_volumes_with_hostile_names_are_shown_unharmed(bench: PageBench, tab: Callable[..., Tab], view: str) -> None:
    opened = tab(path_of(bench, hostile.ALL[0], view))
    page = opened.page
    for name in hostile.ALL:
        opened.go(path_of(bench, name, view))
        page.wait_for_selector(DRAWN[view])
        if view == "map":
            page.focus(".map")
            page.keyboard.press("Enter")
            page.wait_for_selector(".named :text('<img src=x onerror=')")
        if view in ("history", "method"):
            page.wait_for_selector(".events :text('<img src=x onerror=')")
        assert is_unharmed(page), name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_a_long_name_is_cut_and_whole_on_demand(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "writers")).page
    name = page.locator(".writers details.long", has=page.locator("summary", has_text="all 4")).first
    name.wait_for()
    summary = name.locator("summary").first
    assert len(summary.inner_text()) < 130
    summary.focus()
    page.keyboard.press("Enter")
    assert name.locator("code").first.inner_text() == hostile.LONG


def test_everything_is_stale_within_seconds_when_the_server_is_silent_and_live_again_after(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    page = tab().page
    page.wait_for_selector(".row[data-level=good]")
    bench.silent = True
    page.wait_for_selector("#stale:not([hidden])")
    # By the page's own clock: nothing was heard for the limit, and not for much longer.
    assert page.evaluate("document.querySelectorAll('.row:not([data-level=stale])').length") == 0
    assert "Stale" in page.inner_text("#link")
    assert page.get_attribute("#stale", "role") == "alert"
    bench.silent = False
    page.wait_for_selector("#stale[hidden]", state="attached")
    page.wait_for_selector(".row[data-level=good]")


def test_a_page_that_was_cut_off_for_long_connects_again_to_a_slow_server(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    """An attempt has its time from its own beginning, not from the last sign of life."""
    page = tab().page
    page.wait_for_selector(".row[data-level=good]")
    bench.slow_s = 3.0
    bench.silent = True
    page.wait_for_selector("#stale:has-text('the server is silent')")  # it has given the link up
    bench.silent = False
    page.wait_for_selector("#stale[hidden]", state="attached")
    page.wait_for_selector(".row[data-level=good]")


def test_the_limit_of_staleness_is_below_three_seconds(tab: Callable[..., Tab]) -> None:
    page = tab().page
    limit = page.evaluate("import(new URL('static/lib/stream.js', document.baseURI)).then(all => all.STALE_AFTER_MS)")
    assert limit + 250 < 3000  # looked at four times per second


def test_everything_is_stale_when_the_server_is_gone(bench: PageBench, tab: Callable[..., Tab]) -> None:
    opened = tab(path_of(bench, "postgres", "summary"))
    opened.expected = ("Failed to load resource",)
    opened.page.wait_for_selector("[data-level=good]")
    bench.stop()
    opened.page.wait_for_selector(".volume-head[data-level=stale] .badge:has-text('Stale')")
    assert "does not answer" in opened.page.inner_text("#stale") or "closed" in opened.page.inner_text("#stale")


def test_a_token_that_is_not_valid_any_more_is_named(bench: PageBench, tab: Callable[..., Tab]) -> None:
    opened = tab()
    opened.expected = ("status of 401",)
    bench.allowed = False
    bench.drop_links()
    opened.page.wait_for_selector("#stale:has-text('token')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["", *VIEWS])
def test_no_rule_of_accessibility_is_broken(bench: PageBench, tab: Callable[..., Tab], view: str, scheme: str) -> None:
    path = path_of(bench, "ledger", view) if view else ""
    page = tab(path, scheme=scheme).page
    page.wait_for_selector(DRAWN.get(view, ".row"))
    for details in page.query_selector_all("details.as-table, details.help, details.whole-status"):
        details.evaluate("one => { one.open = true }")
    keeps_the_rules(page)


def test_a_stale_page_breaks_no_rule_of_accessibility(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab().page
    bench.silent = True
    page.wait_for_selector("#stale:not([hidden])")
    keeps_the_rules(page)


def test_all_of_the_page_is_reached_by_the_keyboard(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab().page
    page.wait_for_selector(".row")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = set()
    for _ in range(len(bench.made) + 30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.className"))
    assert {f"#/volume/{one.id}" for one in bench.made} <= reached
    page.focus(".row a")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tabs")
    page.focus(".tabs a[data-name=map]")
    page.keyboard.press("Enter")
    page.wait_for_selector(DRAWN["map"])
    assert page.evaluate("document.activeElement.id") == "view-heading"  # a reader goes on where the new view begins


def test_nothing_moves_where_a_person_wants_less_motion(tab: Callable[..., Tab]) -> None:
    page = tab(reduced_motion="reduce").page
    page.wait_for_selector(".row")
    assert page.evaluate("document.getAnimations().length") == 0


def test_twenty_volumes_are_drawn_again_quickly(bench: PageBench, tab: Callable[..., Tab]) -> None:
    """An update touches what changed: the rows stay the same elements, so that a reader keeps its place."""
    page = tab().page
    page.wait_for_selector(".row:nth-child(20)")
    page.evaluate("document.querySelectorAll('.row').forEach(row => { row.kept = true })")
    seen = len(bench.asked)
    deadline = time.monotonic() + 60
    moment = page.inner_text(".totals")
    while page.inner_text(".totals") == moment and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert page.evaluate("[...document.querySelectorAll('.row')].every(row => row.kept)")
    assert len(bench.asked) == seen  # one link, and no question beside it
