"""Each word that the status prints about a state or a problem has an entry in the troubleshooting; so has each event."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.refusals import FATAL_REFUSALS
from pydbt.core.secondary.replica import ReplicaState
from pydbt.core.secondary.status import OFFLINE, RESTARTING
from pydbt.core.seen.event_names import NAMES, TOLD_BY_THE_COMMAND
from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import Whose, environment

PROJECT = Path(__file__).resolve().parent.parent
TEXT = (PROJECT / "docs/operating/troubleshooting.md").read_text()
HEADLINE = PROJECT / "pydbt/core/seen/headline.py"
# Parts of a sentence that say nothing alone.
PARTS = {
    "of", "per second", "left", "secondaries)", "for", "at byte", "), and the replica cannot be used until it can",
    "): if that one was promoted, unmount at once", "; make this side the replica with 'controller demote'", "user", "says:",
    "REFUSED by the secondary (",
}  # fmt: skip
WAITING = [PROJECT / f"pydbt/core/primary/{name}.py" for name in ("overview", "stream_landing", "snapshot_landing")]


def entries() -> str:
    """The first cells of all tables."""
    return "\n".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("|"))


def texts_in(node: ast.AST) -> Iterator[str]:
    """Every text of a piece of code that is no docstring; of an f-string its fixed parts."""
    documents = {
        id(inner.body[0].value)
        for inner in ast.walk(node)
        if isinstance(inner, ast.FunctionDef | ast.Module) and inner.body and isinstance(inner.body[0], ast.Expr)
    }
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and id(inner) not in documents:
            yield inner.value.strip()


def words_of_the_headline() -> set[str]:
    texts = set(texts_in(ast.parse(HEADLINE.read_text())))
    return {text for text in texts if (" " in text or text.isupper()) and len(text) > 3} - PARTS


def words_of_waiting() -> set[str]:
    found: set[str] = set()
    for path in WAITING:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "waiting_for":
                found |= {text.rstrip(" (") for text in texts_in(node) if " " in text}
    return found


def test_the_words_are_found() -> None:
    assert {"TAINTED", "the map cannot be saved:", "not connected:", "no primary"} <= words_of_the_headline()
    assert len(words_of_waiting()) == 9


@pytest.mark.parametrize("words", sorted(words_of_the_headline()))
def test_each_word_of_the_first_line_has_an_entry(words: str) -> None:
    assert words.rstrip(" (") in entries(), f"docs/operating/troubleshooting.md, The words of the status: {words!r}"


@pytest.mark.parametrize("words", sorted(words_of_waiting()))
def test_each_reason_to_wait_has_an_entry(words: str) -> None:
    assert words in entries(), f"docs/operating/troubleshooting.md, The mode, and how far it is: {words!r}"


@pytest.mark.parametrize("code", sorted(FATAL_REFUSALS))
def test_each_refusal_has_an_entry(code: str) -> None:
    assert f"`{code}`" in entries()


@pytest.mark.parametrize(
    "mode", sorted({*map(str, Mode), OFFLINE, RESTARTING, "ready", "streaming", "staging", "direct", "armed"})
)
def test_each_mode_has_an_entry(mode: str) -> None:
    assert f"`{mode}`" in entries()


@pytest.mark.parametrize("state", [ReplicaState.INCONSISTENT, ReplicaState.OUTDATED])
def test_each_state_in_which_a_replica_does_not_follow_has_an_entry(state: ReplicaState) -> None:
    assert str(state.value).lower() in entries().lower()


def test_an_entry_of_the_words_of_the_status_has_what_to_do() -> None:
    section = TEXT.split("## The words of the status")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| [*`]", line)]
    assert len(rows) > 40 and all(len(cell.strip()) >= 4 for row in rows for cell in row.strip("|").split("|")[1:])


def test_the_reference_of_events_has_every_name_with_its_meaning_and_figures_and_no_other() -> None:
    text = (PROJECT / "docs/reference/events.md").read_text()
    known = NAMES | TOLD_BY_THE_COMMAND
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    documented = {name.strip("`"): rest for name, *rest in rows if len(rest) == 3}
    assert documented.keys() == known.keys()
    for name, (gravity, meaning, figures) in documented.items():
        named = known[name]
        assert (gravity, meaning) == (named.gravity.name.lower(), named.meaning), name
        assert tuple(re.findall(r"`([a-z_]+)`", figures)) == named.figures, name


def test_the_reference_of_events_has_every_variable_of_a_hook_and_no_other() -> None:
    text = (PROJECT / "docs/reference/events.md").read_text().split("## Variables")[1].split("\n## ")[0]
    event = Event(1, "", "log-full", "", {"secondary": "a:1", "times": 1})
    told = environment(event, Whose("primary", "/dev/vda3", "data", "/x"), "", 0).keys() - {
        "PATH",
        "LANG",
        "PYDBT_FIGURE_TIMES",
    }
    documented = set(re.findall(r"`(PYDBT_[A-Z_]+)`", text))
    assert documented == told and "`PYDBT_FIGURE_...`" in text
