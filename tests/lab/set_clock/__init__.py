"""Programs whose wall clock is off by what a file tells, which may change while they run.

To be started with ``FOLDER`` first in ``PYTHONPATH``, and the path of the file in ``TEST_CLOCK_OFFSET``.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def put(offset: Path, seconds: float) -> None:
    """Set the clock to this many seconds from the right time."""
    new = offset.with_name(f"{offset.name}.new")
    new.write_text(str(seconds), encoding="ascii")
    new.rename(offset)
