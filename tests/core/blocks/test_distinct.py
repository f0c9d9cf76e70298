"""Sets of numbers by sorting, as numpy's own functions answer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.runs import among, distinct

NUMBERS = st.lists(st.integers(-(1 << 40), 1 << 40) | st.integers(0, 9), max_size=30).map(
    lambda some: np.array(some, np.int64)
)


@given(NUMBERS, NUMBERS)
def test_among_and_distinct_answer_as_numpy_does(numbers: np.ndarray, others: np.ndarray) -> None:
    assert among(numbers, others).tolist() == np.isin(numbers, others).tolist()
    assert distinct(numbers).tolist() == np.unique(numbers).tolist()


def test_among_and_distinct_load_no_module_when_they_are_first_called() -> None:
    """A controller without a free descriptor would end by that, in the middle of its loop."""
    code = (
        "import sys, numpy as np; from pydbt.core.blocks.runs import among, distinct; before = set(sys.modules); "
        "one = np.arange(5); among(one, one[::2]); distinct(one); sys.exit(len(set(sys.modules) - before))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
