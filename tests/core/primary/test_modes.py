"""Modes and phases: no dead end, and no stream before its time."""

from __future__ import annotations

from pydbt.core.primary.modes import LOGGING_PHASES, MODE_MOVES, PHASE_MOVES, STREAMING_PHASES, Mode, Phase


def test_every_mode_and_phase_has_its_row_and_a_way_back_to_normal():
    assert set(MODE_MOVES) == set(Mode) and set(PHASE_MOVES) == set(Phase)
    for start in Mode:
        reached, frontier = {start}, [start]
        while frontier:
            new = MODE_MOVES[frontier.pop()] - reached
            reached |= new
            frontier += new
        assert Mode.NORMAL in reached, f"{start} is a dead end"


def test_no_stream_leaves_before_the_last_sweep_is_over():
    assert STREAMING_PHASES < LOGGING_PHASES
    assert not STREAMING_PHASES & {Phase.SWEEPING, Phase.ARMING, Phase.SETTLING, Phase.LAST_SWEEP}
