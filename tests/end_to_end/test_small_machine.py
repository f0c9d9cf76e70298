"""A machine with little memory: no command and no controller asks for much more than it uses.

A kernel refuses an allocation that is larger than the machine's memory, however little of it would be used (the heuristic of
vm.overcommit_memory, Documentation/mm/overcommit-accounting.rst). Here the limit is that of the address space.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.lab.cluster import cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.load import write_files
from tests.lab.programs import command

MIB = 1 << 20
SIZE = 128 * MIB
SMALL = ("prlimit", f"--as={1536 * MIB}")


def typed(*words: object) -> None:
    """A command, as somebody types it on such a machine."""
    done = command(*words, prefix=SMALL)
    assert done.code == 0, f"{words}: {done}"


def test_a_whole_life_of_a_pair_needs_no_large_allocation(tmp_path: Path, chance: Random) -> None:
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        make_filesystem("ext4", device.path)
        both.prefix = both.replica.prefix = SMALL
        both.start()
        both.wait()
        with mounted(device, tmp_path / "mnt") as folder:
            write_files(folder, chance)
            assert both.primary.terminate() == 0 and both.secondary.terminate() == 0
            write_files(folder, chance)
            both.start()
            both.wait()
            typed("verify", "--state", both.primary_state)
            both.primary.kill()
            write_files(folder, chance)
            both.start_primary()
            both.wait()
        both.wait()
        typed("status", "--state", both.primary_state)
        typed("status", "--state", both.secondary_state)
        typed("down", "--state", both.primary_state)
        typed("arm", device.path, "--state", both.primary_state)
        typed("disarm", device.path, "--state", both.primary_state)
        both.start_primary()
        both.wait()
        assert not (both.status() or {})["tainted"]
        both.compare("after a life on a small machine")
