"""The page in a real browser: what it shows of twenty volumes, at four sizes, and how it tells what is old."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.dashboard.test_page_views import DRAWN, VIEWS
from tests.lab.browser import SIZES, Tab
from tests.lab.page_bench.server import PageBench

pytestmark = pytest.mark.browser


@pytest.mark.smoke
def test_every_volume_is_shown_with_its_level_in_words_and_shape(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab().page
    page.wait_for_selector(".row:nth-child(20)")
    shown = page.eval_on_selector_all(
        ".row", "rows => rows.map(row => [row.querySelector('a').textContent, row.querySelector('.badge').innerText.trim(),"
        "row.querySelector('.badge svg').classList[1]])",
    )  # fmt: skip
    assert sorted(name for name, _, _ in shown) == sorted(one.name for one in bench.made)
    levels = {name: (words, shape) for name, words, shape in shown}
    assert levels["orders"] == ("Bad", "bad")
    assert levels["archive"] == ("Behind", "behind")
    assert levels["old-web"] == ("Stopped, stale", "stopped")
    assert levels["scratch"] == ("Stale", "stale")
    assert levels["git"] == ("Good", "good")


@pytest.mark.parametrize("size", SIZES)
def test_nothing_runs_out_of_the_page(tab: Callable[..., Tab], size: str) -> None:
    page = tab(size=size).page
    page.wait_for_selector(".row")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_enlarged_four_times_everything_still_fits(bench: PageBench, tab: Callable[..., Tab]) -> None:
    """320 pixels: a screen of 1280 at 400 % (WCAG 1.4.10)."""
    page = tab().page
    page.set_viewport_size({"width": 320, "height": 256})
    one = next(one.id for one in bench.made if one.name == "ledger")
    for path in ("", *(f"volume/{one}/{view}" for view in VIEWS), "recording"):
        page.goto(f"{bench.address}/#/{path}")
        page.wait_for_selector(DRAWN.get(path.rpartition("/")[2], "h1"))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
