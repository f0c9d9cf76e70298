"""Which hooks an event has, and what they are told: one line for each variable, whatever others are named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.event_names import ANY
from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import Hooks, Whose, environment, figure_text, variables

WHOSE = Whose("primary", "/dev/vda3", "data", "/var/lib/pydbt/data")


def test_the_hook_of_a_name_comes_before_the_one_of_all() -> None:
    hooks = Hooks(((ANY, ("/any",)), ("tainted", ("/own", "x"))))
    assert hooks.of("tainted") == (("/own", "x"), ("/any",))
    assert hooks.of("started") == (("/any",),) and Hooks().of("started") == ()


def test_figures_are_written_as_people_write_them() -> None:
    assert [figure_text(value) for value in (None, True, False, 3, 1.5, "x")] == ["", "true", "false", "3", "1.5", "x"]


@given(st.text(), st.text(), st.text())
def test_no_text_of_others_is_more_than_one_line_of_what_is_seen(words: str, path: str, figure: str) -> None:
    event = Event(1, "now", "tainted", words, {"secondary": figure, "taints": figure})
    told = environment(event, Whose("primary", path, path, path), path, 2)
    assert all(value.isprintable() and len(value) <= 4096 for value in told.values())
    assert told["PYDBT_DROPPED"] == "2" and told["PYDBT_SECONDARY"] == told["PYDBT_FIGURE_TAINTS"]
    assert "PYDBT_FIGURE_SECONDARY" not in told


def test_an_identity_has_no_dashes() -> None:
    assert variables(Event(1, "", "started", ""), WHOSE, "ab-cd")["PYDBT_VOLUME_ID"] == "abcd"
