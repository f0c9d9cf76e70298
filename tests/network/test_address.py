"""An address of one link is reached over another interface on each side."""

from __future__ import annotations

import pytest

from pydbt.network.address import with_scope


@pytest.mark.parametrize(
    ("told", "scope", "reached"),
    [
        ("[fe80::1]:7790", "eth1", "[fe80::1%eth1]:7790"),
        ("[fe80::1%eth0]:7790", "eth1", "[fe80::1%eth1]:7790"),
        ("[fe80::1%eth0]:7790", "", "[fe80::1%eth0]:7790"),
        ("[2001:db8::1]:7790", "eth1", "[2001:db8::1]:7790"),
        ("169.254.1.2:7790", "eth1", "169.254.1.2:7790"),
        ("alpha:7790", "eth1", "alpha:7790"),
        ("unix:/run/pydbt/s", "eth1", "unix:/run/pydbt/s"),
    ],
)
def test_the_interface_is_that_of_this_side(told: str, scope: str, reached: str) -> None:
    assert with_scope(told, scope) == reached
