"""What the bench answers for one volume: its map, writers, I/O, method and history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.lab.page_bench.heat import block, heat
from tests.lab.page_bench.load import io, writers
from tests.lab.page_bench.story import events, history, method

if TYPE_CHECKING:
    from tests.lab.page_bench.server import PageBench

Query = dict[str, list[str]]


class Answers:
    """``over`` puts an answer of a test in the place of a made-up one, by its name: ``(status, content)``."""

    def __init__(self, bench: PageBench) -> None:
        self.bench = bench
        self.over: dict[str, tuple[int, Any]] = {}
        self.run = "first"  # of the controllers: another one after a restart

    def of(self, path: str, query: Query) -> tuple[int, Any]:
        matched = re.fullmatch(r"/api/volumes/([0-9a-f]{16})/(\w+)", path)
        made = next((one for one in self.bench.made if matched and one.id == matched[1]), None)
        if matched is None or made is None:
            return 404, {"problem": "There is no such volume."}
        name = matched[2]
        if name in self.over:
            return self.over[name]
        if made.standing in ("stopped", "silent"):
            return 503, {"problem": "No controller answers for this volume."}
        number = {key: float(values[0]) for key, values in query.items()}
        now, began = self.bench.clock(), self.bench.began
        words = self.bench.names[0] if self.bench.names else ""
        if name == "map":
            return 200, heat(made, int(number["start"]), int(number["end"]), int(number["cells"]), now, began)
        if name == "block":
            return 200, block(made, int(number["offset"]), self.bench.file)
        if name == "history":
            return 200, history(made, number["from"], number["until"], int(number["points"]), now, began, words)
        if name == "events":
            told = events(made, now, began, words)
            return 200, {"events": told[int(number["since"]) :], "next": len(told), "lost": False, "run": self.run}
        if name == "io":
            return 200, io(made, now)
        if name == "writers":
            return 200, writers(made, now, began, self.bench.names)
        if name == "method":
            return 200, method(made, now, began)
        return 404, {"problem": "There is no such view."}
