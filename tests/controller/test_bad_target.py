"""A block of the target that cannot be read counts as different, so that it is written anew; all others are compared."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from pydbt.controller.secondary.workers import Applier
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import MediumError
from pydbt.core.protocol.digests import DIGEST_KEY_BYTES, UnitDigest
from pydbt.core.protocol.frames import Digests
from pydbt.core.secondary.replica import AppliedPoint
from pydbt.core.units import Geometry

GEOMETRY = Geometry(64 * 4096, 4096)
BAD = (5, 6, 20)


def content(block: int) -> bytes:
    return block.to_bytes(8, "little") * 512


def read_into(offset: int, view: memoryview) -> None:
    blocks = range(offset // 4096, (offset + len(view)) // 4096)
    if any(block in BAD for block in blocks):
        raise MediumError(f"TARGET cannot be read at byte {offset}")
    view[:] = b"".join(content(block) for block in blocks)


def test_bad_blocks_differ_and_the_others_are_compared_one_by_one() -> None:
    applier = Applier(None, SimpleNamespace(read_into=read_into), AppliedPoint(0, 0, 0), 0, None, None, None)
    runs = Runs(np.array([2, 18, 40]), np.array([8, 4, 2]))
    contents = [content(block if block != 41 else 0) for block in runs.blocks().tolist()]
    digest = UnitDigest(bytes(DIGEST_KEY_BYTES))
    digests = b"".join(digest.of(block) for block in contents)
    frame = Digests(batch=1, units=runs, digests=digests, unit_bytes=4096)
    assert applier._compare(frame, GEOMETRY, digest).tolist() == [5, 6, 20, 41]
