"""The last mark that a promoted replica holds, for who promotes it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydbt.cli.mark_words import mark_name
from pydbt.core.errors import StateError
from pydbt.core.printable import printable
from pydbt.core.secondary.held_marks import MarkReport
from pydbt.core.seen.view import View
from pydbt.store.marks_file import load_marks
from pydbt.store.replica_state import load_record


def last_mark_line(state_dir: Path) -> str:
    """One sentence. What cannot be read is unknown: the promotion is done all the same."""
    try:
        newest, record = load_marks(state_dir).newest, load_record(state_dir)
    except StateError as error:
        return f"its last mark is unknown: {printable(str(error))}"
    if newest is None:
        return "it holds no mark of 'controller mark'"
    if record is None:
        return "its last mark is unknown: the state of the replica is gone"
    name = mark_name(View(asdict(MarkReport.of(newest, record.epoch))))
    if not newest.in_image_of(record.epoch):
        return (
            f"the last mark that it was told is {name}, and it was resynchronized since by another run of a primary: if power "
            "was lost there, or another side took over, it may lack writes from before the mark"
        )
    if record.sequence == newest.mark.sequence:
        return f"the last mark that it holds is {name}, and nothing that was written behind it"
    return f"the last mark that it holds is {name}; it has writes behind that as well"
