"""Asks the controller of the selected volume what is open in the details, in a thread of its own: the screen never waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from pydbt.core.errors import PydbtError
from pydbt.core.printable import printable
from pydbt.core.seen.terminal import Styled
from pydbt.core.seen.top_answers import Section, events_request, section_lines, with_new_events
from pydbt.core.seen.view import View

SECTION_PATIENCE_S = 3.0
AGAIN_S = 1.0
SECTION_KEYS = {"e": Section.EVENTS, "w": Section.WRITERS, "i": Section.IO}

Ask = Callable[[str, dict[str, Any], float], dict[str, Any]]
"""Asks the controller of a volume, by its id: the request, and how long to wait. KeyError: no such volume; and PydbtError."""

_log = logging.getLogger(__name__)


class Questions:
    """``answered`` is called, by the thread, after each answer. Nothing is asked while no section is open."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._answered: Callable[[], None] = lambda: None
        self._open: list[Section] = []
        self._selected = ""
        self._answers: dict[tuple[str, Section], tuple[dict[str, Any] | None, str]] = {}
        self._bell, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="top-questions", daemon=True)

    def start(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        self._thread.start()

    def stop(self) -> None:
        """It is not waited for: it may stand in a question, and ends with the program."""
        self._ended = True
        self._bell.set()

    def toggle(self, key: object) -> bool:
        """Open or close the section of a key; whether it is the key of one."""
        section = SECTION_KEYS.get(key) if isinstance(key, str) else None
        if section is None:
            return False
        self._open = [one for one in Section if (one in self._open) != (one is section)]
        self._bell.set()
        return True

    def lines(self, sight: View) -> list[Styled]:
        """The open sections for the selected volume, as far as they are answered."""
        identity = sight.text("id") or ""
        if identity != self._selected:
            self._selected, self._answers = identity, {}
            self._bell.set()
        lines = []
        for section in self._open:
            lines += section_lines(section, *self._answers.get((identity, section), (None, "")))
        return lines

    def _run(self) -> None:
        while not self._ended:
            self._bell.clear()
            for section in list(self._open):
                self._put(self._selected, section)
            self._bell.wait(AGAIN_S if self._open else None)

    def _put(self, identity: str, section: Section) -> None:
        known, _ = self._answers.get((identity, section), (None, ""))
        request = events_request(known) if section is Section.EVENTS else {"command": str(section)}
        answer, problem = None, ""
        try:
            answer = self._ask(identity, request, SECTION_PATIENCE_S)
            if section is Section.EVENTS:
                answer = with_new_events(known, answer)
        except KeyError:
            problem = "no controller answers"
        except PydbtError as error:
            problem = printable(str(error))
        except Exception as error:  # whatever it is, the screen goes on
            _log.warning("%s was not answered", section, exc_info=error)
            problem = "it cannot be asked: see the log at the end"
        self._answers[identity, section] = (answer, problem)
        self._answered()
