"""What a running primary shows of its volume: the heat map, whose a block is, and where the method stands. It changes nothing.

The loop gives copies of the maps, which takes it some milliseconds; everything else is done in the asker's thread, one map at a
time, so that many who look do not take the interpreter away from the loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pydbt.controller.primary.combined import MODES
from pydbt.controller.primary.file_system_questions import FileSystemQuestions
from pydbt.controller.primary.moments import wall_moment
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import VolumeReport
from pydbt.controller.primary.volume import Volume
from pydbt.core.blocks.layers import Layers
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.primary.layers import layers_of
from pydbt.core.primary.method import legal_moves, method_of
from pydbt.core.seen.heat import CELLS_MAX, Cells, heat_of

SEEN_COMMANDS = ("map", "block")
"""Those that are answered in the asker's thread."""
DEFAULT_CELLS = 1024
TURN_S = 5.0
"""Who asks for a map waits this long for those who asked before."""


class SeenAnswers:
    """``look`` and ``method`` are called from the loop's thread, ``answer`` from any other."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._questions = FileSystemQuestions(volume.device)
        self._turn = threading.Lock()

    def answer(self, arguments: dict[str, Any], look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer to one of ``SEEN_COMMANDS``. ``look`` has the loop call ``look`` below, and gives what that returned."""
        if arguments["command"] == "block":
            return self._block(arguments)
        if not self._turn.acquire(timeout=TURN_S):
            raise BusyError("others look at the map of this volume: try again in a moment")
        try:
            return self._map(arguments, look)
        finally:
            self._turn.release()

    def method(self, peers: list[Peer], report: VolumeReport) -> dict[str, Any]:
        """The answer to ``method``: where the worst of these secondaries stands and why, with its log, maps and lists."""
        told = {one.secondary: one for one in report.secondaries}
        peer = max(peers, key=lambda one: MODES.index(told[one.address].mode))
        state, standing = peer.brain.state, told[peer.address]
        return {
            "secondary": peer.address,
            "secondaries": list(told),
            "mode": standing.mode,
            "mode_since": standing.mode_since,
            "why": str(peer.refusal or state.mode_reason),
            "phase": standing.phase,
            "phase_since": wall_moment(state.phase_since, time.monotonic(), "milliseconds"),
            "waiting_for": standing.waiting_for,
            "connection_problem": standing.connection_problem,
            "block_bytes": self._volume.geometry.block_bytes,
            "file_system": watch.file_system if (watch := self._volume.transactions) is not None else None,
            **method_of(peer.brain),
            "moves": legal_moves(),
        }

    def look(self, peers: list[Peer]) -> dict[str, Any]:
        """The maps of these secondaries as they are now."""
        now, volume = time.monotonic(), self._volume
        return {"layers": [layers_of(peer.brain, now) for peer in peers], "written_s": volume.written_within_s(now)}

    def _map(self, arguments: dict[str, Any], look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        geometry = self._volume.geometry
        start, end, cells_max = (arguments.get(name) for name in ("start", "end", "cells"))
        try:
            cells = Cells.over(
                geometry,
                0 if start is None else start,
                geometry.size_bytes if end is None else end,
                DEFAULT_CELLS if cells_max is None else cells_max,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        free = self._questions.free(cells)
        in_kernel = self._volume.capture.written_counts(cells.edges())  # before the maps: see heat_of
        looked = look()
        layers: list[Layers] = looked["layers"]
        return {**heat_of(cells, layers, in_kernel, free), "written_seconds": looked["written_s"]}

    def _block(self, arguments: dict[str, Any]) -> dict[str, Any]:
        offset, size_bytes = arguments.get("offset"), self._volume.geometry.size_bytes
        if offset is None or not 0 <= offset < size_bytes:
            raise UsageError(f"the offset of a block is a byte of the volume, 0 to {size_bytes - 1}, not {offset!r}")
        owner = self._questions.owner(offset)
        extent = None if owner.extent_bytes is None else dict(zip(("start", "length"), owner.extent_bytes, strict=True))
        return {"offset": offset, "extent": extent, "file": owner.file, "why": owner.why}


assert DEFAULT_CELLS <= CELLS_MAX
