"""What the bench answers for one volume: its map, writers, I/O, method and history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.page_bench.server import PageBench

Query = dict[str, list[str]]


class Answers:
    """``over`` puts an answer of a test in the place of a made-up one, by its name: ``(status, content)``."""

    def __init__(self, bench: PageBench) -> None:
        self.bench = bench
        self.over: dict[str, tuple[int, Any]] = {}

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
        return 404, {"problem": "There is no such view."}
