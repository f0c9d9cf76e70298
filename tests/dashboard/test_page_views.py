"""The views of one volume in a real browser: what a person finds in each, with mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Route

from tests.lab.browser import SIZES, Tab
from tests.lab.page_bench.server import PageBench

pytestmark = pytest.mark.browser

VIEWS = ("summary", "map", "writers", "io", "method", "history")
# What is there once a view has its first answer.
DRAWN = {
    "summary": ".plot canvas",
    "map": "[data-kind=insync] .number:not(:empty)",
    "writers": ".writers tbody tr",
    "io": ".figures-table tbody tr",
    "method": ".figure-drawing",
    "history": ".plot canvas",
}


def path_of(bench: PageBench, name: str, view: str) -> str:
    return f"volume/{next(one.id for one in bench.made if one.name == name)}/{view}"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", SIZES)
def test_each_view_is_drawn_and_fits_the_screen(
    bench: PageBench, tab: Callable[..., Tab], view: str, size: str
) -> None:
    page = tab(path_of(bench, "postgres", view), size).page
    page.wait_for_selector(DRAWN[view])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_map_of_16_tib_is_zoomed_by_keys_down_to_single_blocks_and_names_a_file(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    page = tab(path_of(bench, "archive", "map")).page
    page.wait_for_selector(DRAWN["map"])
    assert "16.0\u00a0TiB of 16.0\u00a0TiB" in page.inner_text(".where")
    page.focus(".map")
    for _ in range(40):
        page.keyboard.press("+")
    page.wait_for_selector("text=one block")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".named :text('/srv/archive/')")
    assert "GETFSMAP" in page.inner_text(".named")
    page.wait_for_selector(
        "[role=status]:has-text('file: /srv/archive/')", state="attached"
    )  # what a screen reader hears
    page.keyboard.press("0")
    page.wait_for_selector(".where:has-text('0\u00a0B to 16.0')")


def test_the_map_is_zoomed_by_the_wheel_and_a_click_names_what_is_free(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    page = tab(path_of(bench, "postgres", "map")).page
    page.wait_for_selector(DRAWN["map"])
    box = page.locator(".map canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    before = page.inner_text(".where")
    page.mouse.wheel(0, -240)
    page.wait_for_function("before => document.querySelector('.where').innerText !== before", arg=before)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    page.wait_for_selector(".named :text('unknown'), .named :text('/srv/')")


def test_a_cell_that_is_chosen_at_once_after_a_zoom_has_the_state_of_its_own(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    page = tab(path_of(bench, "orders", "map")).page
    page.wait_for_selector(DRAWN["map"])
    page.focus(".map")
    for key in ("ArrowDown", "ArrowDown", *"+++", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".named dd:has-text('GETFSMAP'), .named dd:has-text('free')")
    for _ in range(600):
        state, words = page.inner_text(".named dd >> nth=2"), page.inner_text(".cell-words")
        if state != "unknown" and words.partition(": ")[2].partition("; file")[0] == state:
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError((state, words))


def test_a_part_of_the_map_that_is_not_known_is_not_called_in_sync(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "ledger", "map")).page
    page.wait_for_selector(DRAWN["map"])
    assert page.inner_text("[data-kind=free] .number") == "unknown"
    assert page.inner_text("[data-kind=unknown] .ranges") == "Free"


def test_a_volume_without_a_controller_has_a_sentence_in_the_place_of_each_view(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    opened = tab(path_of(bench, "old-web", "history"))
    opened.expected = ("status of 503",)
    for view in ("map", "writers", "io", "method", "history"):
        opened.page.goto(f"{bench.address}/#/{path_of(bench, 'old-web', view)}")
        opened.page.wait_for_selector(".notice:has-text('No controller answers for this volume.')")


def test_the_history_is_zoomed_and_marks_restarts(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "history")).page
    page.wait_for_selector(DRAWN["history"])
    page.click("text=7 days")
    page.wait_for_selector(".events strong:text('restart')")
    assert page.locator(".events strong:text('restart')").count() == 3
    page.click("[aria-label='Zoom in']")
    page.wait_for_selector(".where:has-text('3 d 12 h')")
    plot = page.locator(".u-over").first.bounding_box()
    assert plot
    page.mouse.move(plot["x"] + plot["width"] * 0.2, plot["y"] + 40)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.5, plot["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_selector(".where:has-text('1 d 1 h')")


def test_the_method_tells_where_it_is_and_why(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "archive", "method")).page
    page.wait_for_selector(DRAWN["method"])
    assert "what differs is compared and copied" in page.inner_text(".why")
    assert "mode resynchronizing, phase sweeping" in (
        page.locator(".figure-drawing").first.get_attribute("aria-label") or ""
    )


@pytest.mark.parametrize("size", ["tablet", "laptop", "wide"])
def test_the_drawings_of_the_method_are_seen_as_a_whole(bench: PageBench, tab: Callable[..., Tab], size: str) -> None:
    page = tab(path_of(bench, "mail", "method"), size).page
    page.wait_for_selector(DRAWN["method"])
    assert (
        page.eval_on_selector_all(".drawing", "all => all.filter(one => one.scrollWidth > one.clientWidth).length") == 0
    )


@pytest.mark.parametrize("name", ["archive", "postgres"])
def test_no_words_of_a_drawing_lie_over_others(bench: PageBench, tab: Callable[..., Tab], name: str) -> None:
    """Of an empty log, and of one with records."""
    page = tab(path_of(bench, name, "method"), "wide").page
    page.wait_for_selector(DRAWN["method"])
    over = page.evaluate(
        """() => [...document.querySelectorAll(".figure-drawing")].flatMap((drawing) => {
          const texts = [...drawing.querySelectorAll("text")].map((one) => [one.textContent, one.getBoundingClientRect()]);
          const cross = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4
            && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2;
          return texts.flatMap(([words, box], at) =>
            texts.slice(at + 1).filter(([, other]) => cross(box, other)).map(([others]) => `${words} / ${others}`));
        })"""
    )
    assert over == []


def test_the_log_has_transactions_of_the_file_system_by_their_names(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "method")).page
    page.wait_for_selector(".figure-drawing :text-matches('^ext4 [0-9]+: blocks? ')")
    page.click("summary:has-text('The newest records')")
    page.wait_for_selector("tr:has-text('FILE_SYSTEM') td:text-matches('^ext4 [0-9]+$')")


def test_events_of_a_controller_that_was_started_again_join_those_that_were_heard(
    bench: PageBench, tab: Callable[..., Tab]
) -> None:
    page = tab(path_of(bench, "postgres", "method")).page
    page.wait_for_selector(".events strong:text('verified')")
    count = page.locator(".events li:not(.day)").count()
    bench.answers.run = "second"
    bench.names = ("fresh",)
    page.wait_for_selector(".events strong:text('fresh')")
    assert page.locator(".events li:not(.day)").count() > count


def test_the_rows_of_the_writers_add_up_to_what_was_captured(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "writers")).page
    page.wait_for_selector(DRAWN["writers"])
    sums = page.eval_on_selector_all("[data-sum]", "all => all.map(one => one.innerText)")
    assert len(sums) == 3
    assert all(words.startswith("The rows add up to") and "capture counted" not in words for words in sums)


def test_rows_that_have_more_than_was_captured_are_called_a_fault(bench: PageBench, tab: Callable[..., Tab]) -> None:
    opened = tab(path_of(bench, "postgres", "summary"))

    def counted_twice(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        counted = told["captured_bytes"] - 4096
        route.fulfill(response=answer, json={**told, "counted_bytes": counted, "excess_bytes": 4096})

    opened.page.route("**/writers", counted_twice)
    opened.go(path_of(bench, "postgres", "writers"))
    opened.page.wait_for_selector(DRAWN["writers"])
    (words, *_) = opened.page.eval_on_selector_all("[data-sum]", "all => all.map(one => one.innerText)")
    assert "4.0\u00a0KiB more than the volume's capture counted" in words
    opened.page.unroute_all(behavior="wait")


def test_who_writes_has_names_of_users_and_tells_what_has_no_name(bench: PageBench, tab: Callable[..., Tab]) -> None:
    opened = tab(path_of(bench, "postgres", "summary"))

    def without_room(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "lost": {"rows": 5332, "writers": 0}})

    opened.page.route("**/writers", without_room)
    opened.go(path_of(bench, "postgres", "writers"))
    opened.page.wait_for_selector(DRAWN["writers"])
    assert "user root" in opened.page.inner_text(".writers >> nth=0")
    facts = dict(
        opened.page.eval_on_selector_all(".facts div", "all => all.map(one => [...one.children].map(c => c.innerText))")
    )
    assert facts["Without the name of a file"] == "5\u202f332 times: too many files at once"
    assert facts["Without the name of a process"] == "none"


@pytest.mark.parametrize(("mapped", "is_told"), [(4096, True), (1 << 60, False)])
def test_that_the_figure_above_the_map_is_an_upper_bound_is_told_where_it_is_more_than_the_map_has(
    bench: PageBench, tab: Callable[..., Tab], mapped: int, is_told: bool
) -> None:
    name = next(one.name for one in bench.made if one.standing == "cut-off")
    opened = tab(path_of(bench, name, "summary"))

    def counted(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        route.fulfill(response=answer, json={**told, "bytes": {**told.get("bytes", {}), "out_of_sync": mapped}})

    opened.page.route("**/map?*", counted)
    opened.go(path_of(bench, name, "map"))
    opened.page.wait_for_selector(DRAWN["map"])
    assert opened.page.locator("text=are an upper bound").is_visible() is is_told


def test_the_map_is_zoomed_by_two_fingers_and_a_tap_names_a_block(bench: PageBench, tab: Callable[..., Tab]) -> None:
    page = tab(path_of(bench, "postgres", "map"), "phone", has_touch=True).page
    page.wait_for_selector(DRAWN["map"])
    page.locator(".map").scroll_into_view_if_needed()
    box = page.locator(".map canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = page.inner_text(".where")
    hand = page.context.new_cdp_session(page)

    def touch(kind: str, apart: float) -> None:
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}] if kind != "touchEnd" else []
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 20)
    for apart in (30, 45, 60, 90):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    page.wait_for_function("before => document.querySelector('.where').innerText !== before", arg=before)
    page.touchscreen.tap(x, y)
    page.wait_for_selector(".named dd:nth-child(2)")
