"""Generations: a new name for what the secondary cannot have, told and written down before it matters."""

from __future__ import annotations

from pydbt.core.primary.events import KeepGenerations, SendFrame
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.rename import NAME_LASTS_S, Ancestry
from pydbt.core.primary.state import State
from pydbt.core.protocol.frames import Generation
from pydbt.core.protocol.generations import Generations
from tests.core.primary.parts import state_of, taken_effects


def shared(mode: Mode = Mode.UNSYNCHRONIZED) -> tuple[State, Ancestry]:
    state = state_of(mode=mode, generations=Generations(9, shared=True), generation_seed=4)
    return state, Ancestry(state)


def test_the_first_write_without_the_secondary_gets_a_new_name_and_the_second_none() -> None:
    state, ancestry = shared()
    ancestry.written()
    assert taken_effects(state) == [KeepGenerations(state.generations)]
    assert state.generations.current != 9 and 9 in state.generations.bitmap
    ancestry.written()
    assert not taken_effects(state)


def test_a_write_that_follows_in_the_stream_needs_no_name_also_while_the_commit_is_on_its_way() -> None:
    state, ancestry = shared(Mode.NORMAL)
    ancestry.written()
    state.mode, state.phase = Mode.RESYNCHRONIZING, Phase.COMMITTING
    ancestry.written()
    assert not taken_effects(state) and state.generations.current == 9


def test_a_commit_is_preceded_by_the_name_of_its_image_which_may_be_shared_from_then_on() -> None:
    state, ancestry = shared(Mode.RESYNCHRONIZING)
    ancestry.offer()
    kept = [effect.generations for effect in taken_effects(state) if isinstance(effect, KeepGenerations)]
    assert kept[0].current != 9 and kept[-1].shared and kept[-1] == state.generations
    ancestry.in_sync()
    assert not state.generations.bitmap


def test_another_secondarys_name_is_told_to_one_that_follows_and_only_written_down_for_one_that_does_not() -> None:
    state, ancestry = shared(Mode.NORMAL)
    ancestry.renamed(11)
    assert taken_effects(state) == [KeepGenerations(state.generations), SendFrame(Generation(state.generations))]
    state.mode = Mode.UNSYNCHRONIZED
    ancestry.renamed(12)
    assert taken_effects(state) == [KeepGenerations(state.generations)]


def test_a_name_that_is_a_day_old_gets_a_successor_and_one_of_an_earlier_run_at_its_commit() -> None:
    state, ancestry = shared(Mode.NORMAL)
    ancestry.renew()
    assert not taken_effects(state), "no secondary was told a name in this run"
    ancestry.renamed(11)
    state.now = NAME_LASTS_S - 1
    ancestry.renew()
    assert state.generations.current == 11
    state.now = NAME_LASTS_S
    ancestry.renew()
    assert state.generations.current not in (9, 11)


def test_a_commit_of_the_same_day_goes_out_under_the_same_name_and_writes_nothing_that_is_written_already() -> None:
    state, ancestry = shared(Mode.RESYNCHRONIZING)
    ancestry.offer()
    ancestry.in_sync()
    name = state.generations.current
    taken_effects(state)
    state.now = NAME_LASTS_S / 2
    ancestry.offer()
    ancestry.in_sync()
    assert taken_effects(state) == [SendFrame(Generation(state.generations))] and state.generations.current == name
    state.now = NAME_LASTS_S
    ancestry.offer()
    assert state.generations.current != name and name in state.generations.bitmap


def test_a_write_of_a_volume_that_no_secondary_shares_changes_no_name() -> None:
    state = state_of(generations=Generations(9), generation_seed=4)
    ancestry = Ancestry(state)
    ancestry.written()
    ancestry.written_alone()
    assert not taken_effects(state) and state.generations == Generations(9)


def test_each_name_of_a_run_is_another_one() -> None:
    state, ancestry = shared()
    names = {state.generations.current}
    for _ in range(5):
        ancestry.offer()
        names.add(state.generations.current)
        ancestry.in_sync()
        ancestry.written()
        names.add(state.generations.current)
    assert len(names) == 7, "the first one, that of the first COMMIT of this run, and one for each write alone after it"
