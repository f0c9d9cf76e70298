"""The marks that were set, as they are kept in the state of the volume, over starts of the machine."""

from __future__ import annotations

from typing import Any

from pydbt.core.volume.marking import after_a_clean_end
from pydbt.store.volume_state import VolumeState

MARKS_KEY = "marks"
"""In ``VolumeState.more``: the marks that were set, and who holds them."""


def carried_over(state: VolumeState, boot: str) -> dict[str, Any]:
    """``more`` of a state that is written down in this boot: behind a clean stop everything was written out, and no mark lost
    anything by the machine's end."""
    if not state.clean or MARKS_KEY not in state.more:
        return state.more
    return {**state.more, MARKS_KEY: after_a_clean_end(state.more[MARKS_KEY], state.boot_id, boot)}
