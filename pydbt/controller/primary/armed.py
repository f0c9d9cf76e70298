"""The record of an armed volume, in ``VolumeState.more``: programs track it, and no controller has taken over from them yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from pydbt.store.volume_state import VolumeState

ARMED_KEY = "armed"


@dataclass(frozen=True, slots=True)
class Arming:
    """``since`` is the moment; ``attachment`` the name of the programs (``Capture.attach_name``), which has the boot in it.

    ``broken`` is the link of the chain that was missing then; empty when every write before the arming is in the maps.
    """

    since: str
    attachment: str
    broken: str = ""


def arming_of(state: VolumeState) -> Arming | None:
    """None when the volume is not armed. What cannot be understood names no programs, so that none are trusted."""
    kept = state.more.get(ARMED_KEY)
    if kept is None:
        return None
    try:
        return Arming(**{name: str(value) for name, value in kept.items()})
    except (TypeError, AttributeError):
        return Arming("", "unknown")


def with_arming(state: VolumeState, arming: Arming) -> VolumeState:
    return replace(state, more={**state.more, ARMED_KEY: asdict(arming)})


def without_arming(state: VolumeState) -> VolumeState:
    return replace(state, more={name: value for name, value in state.more.items() if name != ARMED_KEY})


def as_tracked(state: VolumeState) -> VolumeState:
    """The state of a volume whose programs a run takes over: neither armed, nor with a mark, which its maps outgrow."""
    return replace(without_arming(state), clean=None)
