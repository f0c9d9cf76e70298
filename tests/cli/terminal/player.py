"""Runs the loop of ``controller top`` on machines out of a file, which a test replaces."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydbt.cli.terminal.loop import TopLoop
from pydbt.cli.terminal.questions import Questions
from pydbt.core.errors import UsageError
from pydbt.core.seen.terminal import Styled
from pydbt.core.seen.view import View

LOOK_S = 0.05


class ToldQuestions(Questions):
    """Names the volume whose details are shown, so that a test can wait for it."""

    def lines(self, sight: View) -> list[Styled]:
        return [*super().lines(sight), Styled("", f"  more of {sight.text('name')}")]


class FilePictures:
    """A picture all the time, until ``halted`` is in the file; ``fail`` in it makes the next picture raise."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def machines(self) -> list[dict[str, Any]]:
        told = json.loads(self._path.read_text())
        if "fail" in told:
            raise RuntimeError(told["fail"])
        return list(told["machines"])

    @contextlib.contextmanager
    def watched(self, listener: Callable[[], None]) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_S):
                if "halted" not in json.loads(self._path.read_text()):
                    listener()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def main() -> int:
    path, interval_s, plain, colours = (
        Path(sys.argv[1]),
        float(sys.argv[2]),
        "plain" in sys.argv,
        "mono" not in sys.argv,
    )

    def ask(identity: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        answers = json.loads(path.read_text()).get("answers", {})
        if request["command"] not in answers:
            raise UsageError(f"no such command: {request['command']}")
        return dict(answers[request["command"]])

    return TopLoop(FilePictures(path), ToldQuestions(ask), interval_s, plain=plain, colours=colours).run()


if __name__ == "__main__":
    sys.exit(main())
