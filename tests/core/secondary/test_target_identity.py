"""Whether a target is the one that a state was kept for."""

from __future__ import annotations

import pytest

from pydbt.core.secondary.target_identity import NAMELESS, Likeness, likeness

SLOT, OTHER_SLOT = {"slot": NAMELESS + "slot:5"}, {"slot": NAMELESS + "slot:6"}
SERIAL, OTHER_SERIAL = {"serial": NAMELESS + "S"}, {"serial": NAMELESS + "T"}
WWID, OTHER_WWID = {"wwid": NAMELESS + "W"}, {"wwid": NAMELESS + "V"}


def compared(kept: dict[str, str], now: dict[str, str], recorded: str = "") -> Likeness:
    best = ("wwid", "serial", "slot", "file")

    def name(names: dict[str, str]) -> str:
        return next((names[kind] for kind in best if kind in names), NAMELESS)

    return likeness(recorded or name(kept), kept, name(now), now)


@pytest.mark.parametrize(
    ("kept", "now"),
    [
        (SLOT, SLOT), (SLOT, SLOT | SERIAL), (SERIAL, SERIAL | WWID), (SERIAL | WWID, SERIAL),
        (SLOT | SERIAL, OTHER_SLOT | SERIAL), (SLOT | WWID, WWID),
    ],
)  # fmt: skip
def test_a_target_that_gets_or_loses_a_name_or_moves_to_another_slot_is_the_same(kept, now) -> None:
    assert compared(kept, now) is Likeness.SAME


@pytest.mark.parametrize(
    ("kept", "now"),
    [
        (SLOT, OTHER_SLOT), (SLOT, OTHER_SLOT | SERIAL), (SERIAL | SLOT, OTHER_SERIAL | SLOT), (SERIAL | SLOT, SLOT),
        (SERIAL | WWID, SERIAL | OTHER_WWID), (SERIAL, {}), (SLOT, {}), (SERIAL, WWID),
    ],
)  # fmt: skip
def test_another_value_of_a_kind_and_no_kind_in_common_are_another_target(kept, now) -> None:
    assert compared(kept, now) is Likeness.OTHER


def test_the_one_name_of_an_earlier_version_may_be_any_of_those_now() -> None:
    now = SLOT | SERIAL | WWID
    for name in now.values():
        assert compared({}, now, name) is Likeness.SAME
    assert compared({}, now, NAMELESS + "slot:6") is Likeness.OTHER
    assert compared({}, {"file": "file:7.1.2"}, "file:7.1.2") is Likeness.SAME


def test_a_device_without_a_name_may_be_any_device_but_no_file() -> None:
    assert compared({}, {}, NAMELESS) is compared({}, SLOT, NAMELESS) is Likeness.UNKNOWN
    assert compared({}, {"file": "file:7"}, NAMELESS) is Likeness.OTHER
    assert compared(SLOT, SLOT, NAMELESS) is Likeness.SAME, "it has got a name since"
    assert compared(SLOT, OTHER_SLOT, NAMELESS) is Likeness.OTHER
