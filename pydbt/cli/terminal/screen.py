"""The widgets of ``controller top``: a line per volume, the details of the selected one, and the keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import urwid

from pydbt.core.seen.terminal import (
    TABLE_COLUMNS,
    Styled,
    by_name,
    cells_of,
    columns_for,
    details_of,
    summary_words,
    worst_first,
)
from pydbt.core.seen.top_keys import KEYS
from pydbt.core.seen.view import View
from pydbt.version import VERSION

# name, foreground, background, and what a terminal without colours has for it.
PALETTE = [
    ("good", "dark green", "default", "default"),
    ("behind", "brown", "default", "underline"),
    ("bad", "light red", "default", "bold"),
    ("stopped", "dark cyan", "default", "underline"),
    ("unknown", "dark magenta", "default", "bold"),
    ("stale", "dark magenta", "default", "bold"),
    ("heading", "default,bold", "default", "bold"),
    ("selected", "default,standout", "default", "standout"),
]
_SELECTED = {style: "selected" for style in (None, "", *(entry[0] for entry in PALETTE))}
# What the details have of a screen that is not high, beside at least three volumes.
_DETAILS_ROWS = 11
_LIST_ROWS_MIN = 3
_KEYS_LINE = "? keys  q end  Enter details  e events  w writers  i block I/O  s order"

More = Callable[[View], list[Styled]]
"""Further lines for the selected volume, as far as its controller has told them."""


class _Row(urwid.WidgetWrap):  # type: ignore[misc]
    """One volume."""

    def __init__(self, cells: Sequence[Styled], width: int) -> None:
        super().__init__(urwid.AttrMap(_columns(cells, width), None, _SELECTED))

    def selectable(self) -> bool:
        return True

    def keypress(self, size: tuple[int, ...], key: str) -> str:
        return key


class TopScreen:
    """Shows machines as ``/api/overview`` has them. ``plain``: the terminal has ASCII alone."""

    def __init__(self, more: More, *, plain: bool) -> None:
        self._more, self._plain = more, plain
        self._machines: list[View] = []
        self._sights: list[View] = []
        self._drawn: list[tuple[str, tuple[Styled, ...], int]] = []
        self._selected = ""
        self._sorted_by_need, self._full, self._helping = True, False, False
        self._size, self._heads_width = (80, 24), 0
        self._summary = urwid.Text("", wrap="clip")
        self._heads = urwid.WidgetPlaceholder(urwid.Text(""))
        self._rows = urwid.SimpleFocusListWalker([])
        self._list = urwid.ListBox(self._rows)
        self._lines = urwid.SimpleFocusListWalker([])
        self._details = urwid.ListBox(self._lines)
        self._pile = urwid.Pile([("weight", 1, self._list), (1, urwid.SolidFill(" ")), ("weight", 1, self._details)])
        help_lines = [urwid.Text(f"{keys:<24}{words}") for keys, words in KEYS]
        self._help = urwid.ListBox(
            urwid.SimpleFocusListWalker([urwid.AttrMap(urwid.Text("KEYS"), "heading"), *help_lines])
        )
        header = urwid.Pile([urwid.AttrMap(self._summary, "heading"), self._heads])
        self._footer = urwid.Text(_KEYS_LINE, wrap="clip")
        self.widget = urwid.Frame(self._pile, header, urwid.AttrMap(self._footer, "heading"))

    @property
    def selected(self) -> View | None:
        """The volume that is selected; None when there is none."""
        return next((one for one in self._sights if _id_of(one) == self._selected), None)

    def show(self, machines: Sequence[dict[str, Any]]) -> None:
        """Draw the machines; the selection stays on its volume."""
        self._machines = [View(machine) for machine in machines]
        self.refresh()

    def resize(self, columns: int, rows: int) -> None:
        self._size = (columns, rows)
        self.refresh()

    def key(self, key: object) -> bool:
        """Whether the key means something here; it is done then."""
        if key == "?":
            self._helping = not self._helping
        elif key == "enter" and not self._helping:
            self._full = not self._full
        elif key == "esc":
            self._helping = self._full = False
        elif key == "s":
            self._sorted_by_need = not self._sorted_by_need
        else:
            return False
        self.refresh()
        return True

    def jump(self, key: object) -> bool:
        """To the first or last volume; whether the key means that now."""
        if key not in ("home", "end") or self._full or self._helping or not self._rows:
            return False
        self._list.set_focus(0 if key == "home" else len(self._rows) - 1)
        return True

    def moved(self) -> None:
        """The list may have another focus: show the details of that volume."""
        position = self._list.focus_position if self._rows else None
        chosen = _id_of(self._sights[position]) if position is not None and position < len(self._sights) else ""
        if chosen != self._selected:
            self._selected = chosen
            self._show_details()

    def refresh(self) -> None:
        sights = [sight for machine in self._machines for sight in machine.parts("volumes")]
        self._sights = worst_first(sights) if self._sorted_by_need else by_name(sights)
        summary = self._shown(f"pydbt {VERSION}  {summary_words(self._machines) if self._machines else 'asking ...'}")
        if self._summary.text != summary:  # what is set anew is drawn anew
            self._summary.set_text(summary)
        self._show_rows()
        self._show_details()
        self._lay_out()

    def _show_rows(self) -> None:
        """Only the rows that changed are made anew: the rest is not drawn again."""
        width = self._size[0]
        wanted = [(_id_of(one), self._cells(one), width) for one in self._sights]
        if wanted == self._drawn:
            return
        same = [ours == theirs for ours, theirs in zip(wanted, self._drawn, strict=False)]
        rows = [
            self._rows[place] if place < len(same) and same[place] else _Row(cells, width)
            for place, (_, cells, _) in enumerate(wanted)
        ]
        self._drawn = wanted
        self._rows[:] = rows
        ids = [identity for identity, _, _ in wanted]
        if ids:
            self._list.set_focus(ids.index(self._selected) if self._selected in ids else 0)
            self._selected = ids[self._list.focus_position]
        if self._heads_width != width:
            self._heads_width = width
            self._heads.original_widget = _columns(
                [Styled("heading", column.heading) for column in TABLE_COLUMNS], width
            )

    def _show_details(self) -> None:
        sight = self.selected
        lines = [] if sight is None else [*details_of(sight, self._size[0], plain=self._plain), *self._more(sight)]
        wanted = [(line.style, self._shown(line.words)) for line in lines]
        if wanted != [getattr(row, "told", None) for row in self._lines]:
            self._lines[:] = [_line(style, words) for style, words in wanted]

    def _cells(self, sight: View) -> tuple[Styled, ...]:
        return tuple(Styled(cell.style, self._shown(cell.words)) for cell in cells_of(sight, plain=self._plain))

    def _shown(self, words: str) -> str:
        """What the terminal can show of it; urwid would count the cells of characters that it then replaces."""
        return words.encode("ascii", "backslashreplace").decode() if self._plain else words

    def _lay_out(self) -> None:
        body = self._help if self._helping else self._details if self._full else self._pile
        if self.widget.body is not body:
            self.widget.body = body
        room = self._size[1] - 4
        rows = min(len(self._rows), max(room - _DETAILS_ROWS, _LIST_ROWS_MIN), max(room, 1))
        options = self._pile.options("given", max(rows, 1))
        if self._pile.contents[0][1] != options:
            self._pile.contents[0] = (self._list, options)


class _Line(urwid.AttrMap):  # type: ignore[misc]
    """A line of the details. ``told``: what it was made of."""

    told: tuple[str, str] = ("", "")


def _line(style: str, words: str) -> _Line:
    made = _Line(urwid.Text(words), style or None)
    made.told = (style, words)
    return made


def _columns(cells: Sequence[Styled], width: int) -> Any:
    """A row of the table; what is too long for its column is cut."""
    made = []
    for place in columns_for(width):
        column, cell = TABLE_COLUMNS[place], cells[place]
        text = urwid.Text((cell.style or None, cell.words), align="right" if column.right else "left", wrap="clip")
        made.append((column.width, text) if column.width else ("weight", 1, text))
    return urwid.Columns(made, dividechars=1)


def _id_of(sight: View) -> str:
    return sight.text("id") or ""
