"""Which pair of machines the tests use: ``--on qemu``, ``--on vagrant``, or ``--on ssh:HOST,HOST``, and what each kind can do.

A test or a file of tests names what it needs besides with ``@needs(Ability.PLUG)``. Where the chosen machines cannot do that it
is left out, and the end of the run says how many tests that were, and why. Whatever is asked of a machine all the same, and that
it cannot do, is a ``MachineFailure``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

import pytest

ON, SSH_CONFIG = "PYDBT_VM_ON", "PYDBT_VM_SSH_CONFIG"
_EXPECTED = "expected qemu, vagrant, or ssh:HOST,HOST with the primary first"


class Ability(Enum):
    """What only machines have that were booted for the tests."""

    PLUG = "plugs to pull, and disks that forget then what they had not flushed"
    IMAGES = "disks that are files of this host"
    ANEW = "machines made for them alone: with other packages, or with nothing of the program yet"
    EMULATOR = "an emulator of this host that can be stopped, or killed"


@dataclass(frozen=True, slots=True)
class Kind:
    """``hosts``: the primary and the secondary as ssh knows them, from the file ``config`` or, without one, the user's own."""

    name: str
    hosts: tuple[str, ...] = ()
    config: str = ""

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset(Ability) if self.name == "qemu" else frozenset()


def parse(text: str, config: str = "") -> Kind:
    """ValueError says what is wrong and what was expected."""
    name, colon, rest = text.partition(":")
    if name == "ssh" and colon:
        hosts = tuple(rest.split(","))
        if len(hosts) != 2 or not all(hosts) or any(host.startswith("-") for host in hosts):
            raise ValueError(f"{text} does not name two machines: {_EXPECTED}")
        if hosts[0] == hosts[1]:
            raise ValueError(f"{text} names one machine twice: {_EXPECTED}")
        return Kind(name, hosts, config)
    if text not in ("qemu", "vagrant"):
        raise ValueError(f"{text} is no kind of machines: {_EXPECTED}")
    if config:
        raise ValueError(f"a configuration of ssh is for --on ssh:HOST,HOST, and {text} has its own")
    return Kind(text)


def chosen() -> Kind:
    """For this run of tests."""
    return parse(os.environ.get(ON) or "qemu", os.environ.get(SSH_CONFIG, ""))


def needs(*abilities: Ability) -> pytest.MarkDecorator:
    """Mark a test, or a file of them."""
    return pytest.mark.needs(*abilities)


def lacking(item: pytest.Item, kind: Kind) -> list[Ability]:
    """What a test needs, and this kind of machines does not have."""
    wanted = [ability for mark in item.iter_markers("needs") for ability in mark.args]
    return [ability for ability in wanted if ability not in kind.abilities]


def left_out(counts: dict[Ability, int], kind: Kind) -> list[str]:
    """What a run says of the tests that it leaves out: one line for each reason."""
    return [
        f"left out on {kind.name}: {count} test{'' if count == 1 else 's'}, which need{'s' if count == 1 else ''} {ability.value}"
        for ability, count in counts.items()
    ]
