"""A machine that has proved a name and a key is the peer, or is turned away with words that name nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.protocol.frames import Refuse
from pydbt.core.protocol.peer_identity import (
    IDENTITY_REFUSALS,
    OTHER_KEY,
    OTHER_NAME,
    REVOKED,
    SAME_IDENTITY,
    Machine,
    PeerObjection,
    objection_to,
    objection_to_revoked,
    objection_to_twin,
)

ALPHA, ALPHA_ANEW, BETA = Machine("alpha", "sha256:1"), Machine("alpha", "sha256:2"), Machine("beta", "sha256:3")


def code(found: PeerObjection | None) -> str:
    return "" if found is None else found.code


@pytest.mark.parametrize(
    ("proved", "pinned", "given_name", "any_key", "expected"),
    [
        (ALPHA, Machine(), "", True, ""),  # the first that comes
        (ALPHA, ALPHA, "", True, ""),
        (ALPHA_ANEW, ALPHA, "", True, OTHER_KEY),
        (BETA, ALPHA, "", True, OTHER_NAME),
        (BETA, ALPHA, "beta", True, ""),  # the operator's name overrides the pin
        (ALPHA, ALPHA, "beta", True, OTHER_NAME),
        (ALPHA_ANEW, ALPHA, "alpha", True, ""),  # named once: with whatever key
        (ALPHA_ANEW, ALPHA, "alpha", False, OTHER_KEY),  # named for good: the key stays pinned
        (BETA, ALPHA, "beta", False, ""),  # the pinned key is that of another machine
        (ALPHA_ANEW, Machine("alpha"), "", True, ""),  # the key was not known to earlier versions
    ],
)
def test_a_machine_is_known_by_name_and_key(
    proved: Machine, pinned: Machine, given_name: str, any_key: bool, expected: str
) -> None:
    assert code(objection_to(proved, pinned, given_name, any_key=any_key)) == expected


NAMES = st.text("abcxyz", min_size=1, max_size=8)
KEYS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
MACHINES = st.builds(Machine, NAMES, KEYS)


@given(MACHINES, MACHINES)
def test_the_machine_that_is_turned_away_learns_of_nobody_but_itself(proved: Machine, pinned: Machine) -> None:
    other = Machine(f"the-true-{pinned.name}", pinned.key)
    for found in (objection_to(proved, other), objection_to(proved, Machine(), other.name)):
        assert found is not None and proved.name in found.told
        assert other.name not in found.told and other.key not in found.told
        assert other.name in found.why, "the operator of this side is told all of it"


@given(MACHINES)
def test_each_objection_can_be_sent_as_a_refusal(proved: Machine) -> None:
    found = [objection_to(proved, Machine("x" * 9, "y")), objection_to(proved, Machine(proved.name, "sha256:"))]
    found += [objection_to_revoked(proved), objection_to_twin(proved)]
    assert [code(one) for one in found] == [OTHER_NAME, OTHER_KEY, REVOKED, SAME_IDENTITY]
    for one in found:
        assert one is not None and Refuse(one.code, one.told).code in IDENTITY_REFUSALS
