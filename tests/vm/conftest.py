"""The machines of the tests, the seed of what is random in them, and which tests belong to the long run only."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import kinds
from tests.vm.image import SUITE, chosen_suite
from tests.vm.pair import FULL, MIB, Pair, pair
from tests.vm.site import STATE_DISK, mount_state

# Vagrant and libvirt are many packages; and a boot of systemd takes a while: for the long run only.
SLOW = (
    "test_first_disk.py",
    "test_vagrant.py",
    "test_services.py",
    "test_package.py",
    "test_boot.py",
    "test_targets.py",
    "test_observing.py",
    "test_changed_roles.py",
)
collect_ignore = [] if FULL else list(SLOW)


def long(*values: Any) -> tuple[Any, ...]:
    """Variants for the full run only (scripts/vm test --full)."""
    return values if FULL else ()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("machines", "the machines of tests/vm")
    group.addoption("--on", metavar="KIND", help="qemu (default), vagrant, or ssh:HOST,HOST (tests/vm/kinds.py)")
    group.addoption("--ssh-config", metavar="FILE", help="how ssh reaches the hosts of --on ssh:HOST,HOST")
    group.addoption("--suite", metavar="NAME", help="of Debian, for machines under QEMU: bookworm (default) or trixie")


def pytest_configure(config: pytest.Config) -> None:
    """Into the environment: programs that a test starts must choose the same."""
    for option, name in (("on", kinds.ON), ("ssh_config", kinds.SSH_CONFIG), ("suite", SUITE)):
        # Not known where this file was found only when tests were collected.
        if value := config.getoption(option, None):
            os.environ[name] = value
    try:
        kinds.chosen(), chosen_suite()
    except (ValueError, RuntimeError) as error:
        raise pytest.UsageError(str(error)) from None


_left_out: Counter[kinds.Ability] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kind = kinds.chosen()
    out = []
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.machines)
        if lacking := kinds.lacking(item, kind):
            _left_out[lacking[0]] += 1
            out.append(item)
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in kinds.left_out(_left_out, kinds.chosen()):
        terminalreporter.write_line(line)


# After a power cut all of it is compared. XFS is not made smaller than 300 MiB; and of ext4 less than half may be what dm-era
# names (test_write_intent.py), with the load's 30 MiB.
FRAGILE_BYTES = (320 if FULL else 96) * MIB


# Each test leaves the disks of its machines empty and no controller running, so that one boot is enough for all of them.
@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two booted machines, each with a disk ``data`` that keeps what it was told, and ``log`` for a record of its writes."""
    with pair({"data": 512 * MIB, "log": 4096 * MIB}, keep_logs=tmp_path_factory.mktemp("consoles")) as both:
        yield both


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two booted machines whose disks have volatile caches: ``data``; ``state`` with the state directories; ``era``."""
    disks = {"data": FRAGILE_BYTES, "state": 320 * MIB, "era": 16 * MIB}
    with pair(disks, volatile=True, keep_logs=tmp_path_factory.mktemp("consoles")) as both:
        for machine in both.both:
            machine.run(f"mkfs.ext4 -q -F {machine.device('state')} && mkdir -p {STATE_DISK} && sync")
            mount_state(machine)
        yield both


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """From TORTURE_SEED, else new each time; printed, so that a failure can be played again."""
    seed = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"TORTURE_SEED={seed} ({request.node.nodeid})")
    return random.Random(f"{seed} {request.node.name}")
