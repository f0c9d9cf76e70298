"""The last updates that a secondary tells: units of a size that both sides know, and the same only when they are equal."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.recent import Recall, Recent


def units(*runs: tuple[int, int]) -> Runs:
    return Runs(np.array([first for first, _ in runs]), np.array([count for _, count in runs]))


@pytest.mark.parametrize("unit_bytes", [0, 4095, 3 << 12])
def test_units_of_a_size_that_nobody_compares_in_are_refused(unit_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"units of {unit_bytes} bytes"):
        Recent(units((1, 1)), unit_bytes)


def test_a_length_that_the_wire_cannot_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_bytes"):
        Recall(1 << 64)


def test_equal_are_those_of_the_same_units_in_the_same_order() -> None:
    told = Recent(units((9, 1), (2, 3)), 4096)
    assert told == Recent(units((9, 1), (2, 3)), 4096)
    for other in (
        Recent(units((2, 3), (9, 1)), 4096),
        Recent(units((9, 1), (2, 2)), 4096),
        Recent(units((9, 1)), 4096),
    ):
        assert told != other
    assert told != Recent(units((9, 1), (2, 3)), 512)
    assert told != "units"
