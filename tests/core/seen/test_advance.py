"""Progress that goes back says why, and none that does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.advance import READ_S, Advance, LastingAdvance
from pydbt.core.seen.view import View


def progress(done: int, total: int) -> View:
    return View({"done_bytes": done, "total_bytes": total})


def test_each_way_back_has_its_reason() -> None:
    advance = Advance()
    assert advance.look(progress(50, 100), "resynchronizing") == ""
    assert advance.look(progress(60, 300), "resynchronizing") == "back from 50 %: 200 B more is to be done"
    assert advance.look(progress(10, 300), "resynchronizing") == "back from 20 %: it has begun anew"
    assert advance.look(progress(90, 300), "resynchronizing") == ""
    assert advance.look(progress(0, 0), "normal") == "", "there is nothing to be done"
    assert advance.look(progress(0, 400), "initial-sync") == "back from 30 %: initial-sync has begun"


def test_in_a_picture_that_is_drawn_again_and_again_the_reason_stays_for_a_while() -> None:
    lasting = LastingAdvance()
    assert lasting.look(progress(50, 100), "resynchronizing", 100.0) == ""
    reason = "back from 50 %: 100 B more is to be done"
    assert lasting.look(progress(60, 200), "resynchronizing", 101.0) == reason
    assert lasting.look(progress(61, 200), "resynchronizing", 101.0 + READ_S - 0.1) == reason
    assert lasting.look(progress(62, 200), "resynchronizing", 101.0 + READ_S) == ""


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 1000), st.sampled_from(["a", "b"])), max_size=30))
def test_no_line_shows_less_than_the_one_before_without_a_reason(steps: list[tuple[int, int, str]]) -> None:
    advance, shown = Advance(), 0
    for done, total, kind in steps:
        done = min(done, total)
        words, percent = advance.look(progress(done, total), kind), 100 * done // total
        assert bool(words) == (percent < shown)
        shown = percent
