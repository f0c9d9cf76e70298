"""Reading what may have any size: with as much memory as there is content, and no more content than is allowed."""

from __future__ import annotations

from collections.abc import Callable

_PIECE_BYTES = 1 << 20


def read_at_most(read: Callable[[int], bytes], bytes_max: int, expected: int = 0) -> bytes | None:
    """Everything that ``read`` gives until its end; None when that is more than ``bytes_max``.

    ``read(count)`` gives up to ``count`` bytes, and none at the end. ``expected``: how many come, if nothing changes meanwhile;
    this many are read at once. Python reserves all that it is asked to read, and a kernel refuses more than the machine has (the
    heuristic of vm.overcommit_memory, Documentation/mm/overcommit-accounting.rst): the limit itself is never asked for.
    """
    pieces: list[bytes] = []
    total, wanted = 0, min(expected + 1, bytes_max + 1)
    while piece := read(wanted):
        pieces.append(piece)
        total += len(piece)
        if total > bytes_max:
            return None
        wanted = min(_PIECE_BYTES, bytes_max + 1 - total)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
