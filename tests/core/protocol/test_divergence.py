"""A split brain is told in the words of people: host, device, moments and MiB of each side; an unknown one is called unknown."""

from __future__ import annotations

import json

import pytest

from pydbt.core.protocol.divergence import Divergence, short

SIDE = Divergence(
    "alpha",
    "/dev/vda3",
    "2026-01-02T16:18:58+00:00",
    "2026-01-02T16:19:01+00:00",
    "2026-01-02T16:30:00+00:00",
    80 << 20,
)


def test_a_side_tells_everything_that_is_known_of_it() -> None:
    assert str(SIDE) == (
        "alpha (/dev/vda3): last common write 2026-01-02 16:18:58 UTC, first write of its own 2026-01-02 16:19:01 UTC, "
        "last one 2026-01-02 16:30:00 UTC, 80.0 MiB that the other side never had"
    )


def test_an_unknown_figure_is_called_unknown_and_never_0() -> None:
    words = str(Divergence())
    assert words.startswith("the other side: last common write not known") and "an unknown number of MiB" in words
    assert str(Divergence(device="/dev/vdb")).startswith("a host that is not known (/dev/vdb)")
    assert str(Divergence("beta")).startswith("beta: ")
    assert (
        Divergence(differing_bytes=0).size_words == "0.0 MiB"
        and Divergence(differing_bytes=1 << 40).size_words == "1048576 MiB"
    )


def test_a_divergence_comes_back_from_json() -> None:
    for side in (SIDE, Divergence()):
        assert Divergence.from_values(json.loads(json.dumps(side.to_values()))) == side


@pytest.mark.parametrize("values", [None, {}, SIDE.to_values() | {"more": 1}, SIDE.to_values() | {"differing_bytes": -1},
                                    SIDE.to_values() | {"host": 5}, SIDE.to_values() | {"last_alone": "x" * 65}])  # fmt: skip
def test_values_that_are_no_side_s_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Divergence.from_values(values)


def test_moments_are_told_to_the_second_and_with_their_zone() -> None:
    assert short("2026-01-02T16:18:58.123Z") == short("2026-01-02T16:18:58+00:00") == "2026-01-02 16:18:58 UTC"
    assert short("2026-01-02T16:18:58+02:00") == "2026-01-02 16:18:58+02:00" and short("") == "not known"


def test_a_person_has_to_decide_about_what_one_side_alone_has_unless_that_is_nothing() -> None:
    assert Divergence("alpha", "/dev/x", differing_bytes=0).choice == ""
    for found in (Divergence("alpha", "/dev/x", differing_bytes=8 << 20), Divergence()):
        assert found.size_words in found.choice and "'controller invalidate' gives it up" in found.choice
        assert found.to_report() == {**found.to_values(), "words": found.choice}
