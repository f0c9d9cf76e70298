"""A crowd from one network, of any number of addresses, keeps out only itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.secondary.crowd import displaced, network_of

PLACES = 16


def after(coming: list[str], welcomed: str = "") -> list[str]:
    """Who is left of those that came, in a room for a few."""
    left: dict[int, str] = {}
    for peer, host in enumerate(coming):
        left[peer] = host
        if len(left) > PLACES:
            del left[displaced(left, welcomed)]
    return list(left.values())


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("2001:db8:1::7", "2001:db8:1::ffff:1", True),
        ("2001:db8:1::7", "2001:db8:1:1::7", False),
        ("127.0.0.1", "127.200.3.4", True),
        ("10.1.2.3", "10.1.2.250", True),
        ("10.1.2.3", "10.1.3.3", False),
        ("::ffff:10.1.2.3", "10.1.2.9", True),
        ("::ffff:127.9.9.9", "127.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "10.1.2.3", False),
    ],
)
def test_addresses_of_one_network_count_together(one: str, other: str, alike: bool) -> None:
    assert (network_of(one) == network_of(other)) is alike


@pytest.mark.parametrize(
    "crowd",
    ["2001:db8:bad::{:x}", "127.0.0.{}", "10.9.9.{}", "::ffff:10.9.9.{}"],
    ids=["v6", "loopback", "v4", "mapped"],
)
def test_a_crowd_from_one_network_keeps_nobody_else_out(crowd: str) -> None:
    left = after(["2001:db8:1::7", *(crowd.format(number) for number in range(1, 100)), "192.0.2.1"])
    assert {"2001:db8:1::7", "192.0.2.1"} < set(left) and len(left) == PLACES


@given(st.lists(st.integers(0, 99), max_size=200), st.integers(0, 8))
def test_nobody_displaces_the_address_that_was_welcomed_last(numbers: list[int], times: int) -> None:
    others = [f"2001:db8:bad:{number:x}::1" for number in numbers]  # of as many networks as they like
    friend = "2001:db8:bad:1::7"
    assert after([friend] * times + others, welcomed=friend).count(friend) == times


def test_the_oldest_stranger_at_a_known_address_is_closed_before_other_addresses_are_shut_out() -> None:
    left = after(["192.0.2.1", *["198.51.100.7"] * 100, "192.0.2.1"], welcomed="198.51.100.7")
    assert left.count("192.0.2.1") == 2


def test_the_oldest_of_a_crowd_goes_first() -> None:
    assert displaced({3: "10.0.0.1", 5: "10.0.1.1", 7: "10.0.1.2"}) == 5
    assert displaced({3: "10.0.0.1", 5: "10.0.0.1"}, welcomed="10.0.0.1") == 3
