"""What the page says of what it does not know: an answer that is no overview is no sign of life."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.lab.browser import Tab
from tests.lab.page_bench.server import PageBench

pytestmark = pytest.mark.browser

STREAM = "text/event-stream"
KEEP_STANDINGS = """window.standings = [];
new MutationObserver(() => standings.push(document.body.dataset.link)).observe(document.body, {attributeFilter: ["data-link"]})"""


def until_asked_again(bench: PageBench, page: Page, times: int) -> None:
    """The page has tried to make its link so many times more."""
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
