"""What the page says of what it does not know: an answer that is no overview, a sum with an unknown part, a value that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.dashboard.test_page_views import DRAWN, VIEWS, path_of
from tests.lab.browser import Tab, keeps_the_rules
from tests.lab.page_bench.server import PageBench

pytestmark = pytest.mark.browser

STREAM = "text/event-stream"
KEEP_STANDINGS = """window.standings = [];
new MutationObserver(() => standings.push(document.body.dataset.link)).observe(document.body, {attributeFilter: ["data-link"]})"""


def until_asked_again(bench: PageBench, page: Page, times: int) -> None:
    """The page has tried to make its link that often again."""
    wanted = bench.asked.count("/api/stream") + times
    for _ in range(600):
        if bench.asked.count("/api/stream") >= wanted:
            return
        page.wait_for_timeout(100)
    raise AssertionError(bench.asked[-10:])


@pytest.mark.parametrize(
    ("kind", "garbage", "words"),
    [
        ("text/html; charset=utf-8", "<html>Please log in</html>", "not the dashboard's"),
        (STREAM, "event: overview\ndata: <html>\n\n", "cannot be read"),
        (STREAM, "event: overview\ndata: {}\n\n", "cannot be read"),
        (STREAM, ": beat\n\n", ""),
    ],
    ids=["login page", "no JSON", "no overview", "beats alone"],
)
def test_an_answer_that_is_no_overview_keeps_nothing_green(
    bench: PageBench, tab: Callable[..., Tab], kind: str, garbage: str, words: str
) -> None:
    page = tab().page
    page.wait_for_selector(".row[data-level=good]")
    bench.kind, bench.garbage = kind, garbage
    bench.drop_links()
    page.wait_for_selector("#stale:not([hidden])")
    page.evaluate(KEEP_STANDINGS)
    until_asked_again(bench, page, 2)
    page.wait_for_selector(f"#stale:has-text({words!r})" if words else "#stale")
    assert page.locator(".row:not([data-level=stale])").count() == 0
    assert "live" not in page.evaluate("standings")
    bench.kind, bench.garbage = STREAM, ""
    page.wait_for_selector("#stale[hidden]", state="attached")
    page.wait_for_selector(".row[data-level=good]")


def test_a_link_on_which_only_beats_go_on_coming_is_stale(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab().page
    page.wait_for_selector(".row[data-level=good]")
    bench.garbage = ": beat\n\n"
    page.wait_for_selector("#stale:not([hidden])")
    assert page.locator(".row:not([data-level=stale])").count() == 0


def overview_of(
    bench: PageBench, changes: Callable[[int, dict[str, Any]], dict[str, Any]]
) -> Callable[[], dict[str, Any]]:
    """Of machines that can all be reached, with the changes to each volume; all else of the volumes is as made up."""
    made = bench.overview

    def overview() -> dict[str, Any]:
        told = made()
        for machine in told["machines"]:
            machine |= {"reachable": True, "problem": ""}
            machine["volumes"] = [one | changes(index, one) for index, one in enumerate(machine["volumes"])]
        return told

    return overview


def total(page: Page, name: str) -> str:
    return page.locator(f".totals div:has(dt:text-is('{name}')) dd").inner_text().replace("\u00a0", " ")


def test_a_sum_of_which_a_part_is_unknown_names_that(
    bench: PageBench, tab: Callable[..., Tab], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_unknown(index: int, volume: dict[str, Any]) -> dict[str, Any]:
        is_known = volume["name"] != "git"
        return {"out_of_sync_bytes": 0 if is_known else None, "write_rate_bytes": 1024 if is_known else None,
                "wire_rate_bytes": None}  # fmt: skip

    bench.made = [one for one in bench.made if one.name in ("git", "home")]
    monkeypatch.setattr(bench, "overview", overview_of(bench, one_unknown))
    page = tab().page
    page.wait_for_selector(".row:nth-child(2)")
    assert total(page, "Out of sync") == "0 B and unknown"
    assert total(page, "Written to disks") == "1.0 KiB/s and unknown"
    assert total(page, "Sent") == "unknown"


def test_a_machine_that_is_not_reached_takes_the_all_from_good(
    bench: PageBench, tab: Callable[..., Tab], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.made = [one for one in bench.made if one.name in ("git", "home")]
    page = tab().page
    page.wait_for_selector(".row[data-level=good]:nth-child(2)")
    assert page.inner_text(".summary") == "2 of 2 good, as far as is known."
    assert total(page, "Out of sync").endswith(" and unknown")
    monkeypatch.setattr(bench, "overview", overview_of(bench, lambda index, one: {}))
    page.wait_for_selector(".summary:has-text('All 2 are good.')")
    assert "unknown" not in page.inner_text(".totals")


def test_a_plot_calls_no_value_of_the_past_the_present_one(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "summary")).page
    page.wait_for_selector(DRAWN["summary"])
    page.wait_for_selector(".keys b:has-text('MiB/s')")
    bench.made = [replace(one, standing="silent") if one.name == "postgres" else one for one in bench.made]
    page.wait_for_selector(".plotted:has-text('Written to the disk unknown'):has-text('Sent on the wire unknown')")
    assert "Written to the disk unknown" in (page.locator(".plot").first.get_attribute("aria-label") or "")


def test_figures_of_events_have_no_escapes_of_the_page_s_own_spaces(bench: PageBench, tab: Callable[..., Tab]) -> None:
    figures = {"bytes": 12 << 20, "out_of_sync_bytes": 3 << 20, "silent_s": 75.0}
    moment = bench.overview()["machines"][0]["volumes"][0]["last_in_sync"]
    told = [{"number": 1, "moment": moment, "name": "disk-error", "words": "made up", "figures": figures}]
    bench.answers.over["events"] = (200, {"events": told, "next": 1, "lost": False, "run": "first"})
    page = tab(path_of(bench, "postgres", "method")).page
    page.wait_for_selector(".events strong:text('disk-error')")
    shown = page.locator(".events li:has(strong) .muted").first.inner_text()
    assert shown.strip() == "bytes 12.0 MiB, out of sync 3.0 MiB, silent 1 min 15 s"


# Of a view that shows the past: what of it has not the look of that.
LOOKS_PRESENT = """() => Array.from(document.querySelectorAll(".view .panel, .view :is(.plot, .map, .strip, .drawing, .heat)"))
.filter(one => one.offsetParent !== null)
.filter(one => one.matches(".panel") ? getComputedStyle(one).borderTopStyle !== "dashed" : getComputedStyle(one).opacity > 0.5)
.map(one => one.className)"""


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_of_a_silent_controller_has_the_look_of_the_past_and_says_it(
    bench: PageBench, tab: Callable[..., Tab], view: str
) -> None:
    opened = tab(path_of(bench, "postgres", view))
    opened.expected += ("503",)
    page = opened.page
    page.wait_for_selector(DRAWN[view])
    page.wait_for_selector(".view:not([data-stale]):has(.view-head .badge[hidden])")
    assert any("panel" in one for one in page.evaluate(LOOKS_PRESENT))
    made = bench.made
    bench.made = [replace(one, standing="silent") if one.name == "postgres" else one for one in made]
    page.wait_for_selector(".view[data-stale] .view-head .badge:visible:has-text('Stale')")
    assert page.evaluate(LOOKS_PRESENT) == []
    keeps_the_rules(page)
    bench.made = made
    page.wait_for_selector(".view:not([data-stale]):has(.view-head .badge[hidden])")


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_has_the_look_of_the_past_when_the_server_is_silent(
    bench: PageBench, tab: Callable[..., Tab], view: str
) -> None:
    page = tab(path_of(bench, "postgres", view)).page
    page.wait_for_selector(DRAWN[view])
    bench.silent = True
    page.wait_for_selector(".view[data-stale] .view-head .badge:visible:has-text('Stale')")
    assert page.evaluate(LOOKS_PRESENT) == []


def test_a_span_of_which_nothing_was_kept_is_no_old_one(bench: PageBench, tab: Callable[..., Tab]) -> None:
    bench.answers.over["history"] = (
        200,
        {"columns": ["moment"], "rows": [], "restarts": [], "events": [], "problem": ""},
    )
    page = tab(path_of(bench, "postgres", "history")).page
    page.wait_for_selector(".view:not([data-stale]) .notice:visible:has-text('Nothing was kept of this span.')")


def test_events_that_are_missing_are_told_as_a_gap(bench: PageBench, tab: Callable[..., Tab]) -> None:
    moment = bench.overview()["machines"][0]["volumes"][0]["last_in_sync"]

    def told(number: int, lost: bool) -> tuple[int, dict[str, Any]]:
        event = {"number": number, "moment": moment, "name": "verified", "words": f"number {number}", "figures": {}}
        return 200, {"events": [event], "next": number, "lost": lost, "run": "first"}

    bench.answers.over["events"] = told(5, lost=False)
    page = tab(path_of(bench, "postgres", "method")).page
    page.wait_for_selector(".events :text('number 5')")
    bench.answers.over["events"] = told(2000, lost=True)
    page.wait_for_selector(".events li:has-text('number 2000') + li:has(strong:text-is('gap'))")
    assert "events are missing here" in page.inner_text(".events li:has(strong:text-is('gap')) >> nth=0")
