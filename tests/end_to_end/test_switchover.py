"""``controller switchover``: the planned change of places as one command, and never two primaries."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pydbt.store.open_handover_file import load_open_handover
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.identities import socket_address
from tests.lab.images import assert_identical
from tests.lab.patience import until
from tests.lab.programs import Controller, Outcome, command, status_of

MIB = 1 << 20
SIZE = 64 * MIB


class Places:
    """Two disks, a controller on each side, and who listens where."""

    def __init__(self, both: Cluster, first: Device, second: Device, folder: Path, chance: Random) -> None:
        self.both, self.first, self.second, self.folder, self.chance = both, first, second, folder, chance
        self.here = socket_address()

    def write(self, device: Device, name: str) -> None:
        with mounted(device, self.folder / "mnt") as folder:
            (folder / name).write_bytes(self.chance.randbytes(2 * MIB))

    def switch(self, state_dir: Path, listen: str, *options: str) -> Outcome:
        return command("switchover", "--state", state_dir, "--listen", listen, *options, timeout_s=200)

    def role(self, state_dir: Path) -> str:
        return (status_of(state_dir) or {}).get("role", "")

    def tells(self, state_dir: Path, code: int, *words: str) -> None:
        """The status has these words for people, and for programs under its key."""
        told = command("status", "--state", state_dir)
        assert told.code == code and all(word in told.output + told.errors for word in words), (
            f"{told}\n{self.both.tails()}"
        )
        (line,) = [line for line in (told.output + told.errors).splitlines() if words[0] in line]
        assert line.count(words[0]) == 1, line
        asked = json.loads(command("status", "--json", "--state", state_dir).output)
        assert all(word in asked["handover"]["words"] for word in words), asked

    def wait(self, state_dir: Path) -> None:
        done = command("wait", "--state", state_dir, "--timeout", "120", timeout_s=130)
        assert done.code == 0, f"{done}\n{self.both.tails()}"


@pytest.fixture
def places(tmp_path: Path, chance: Random) -> Iterator[Places]:
    (tmp_path / "b").mkdir()
    with loop_device(tmp_path, SIZE) as first, loop_device(tmp_path / "b", SIZE) as second:
        make_filesystem("ext4", first.path)
        with cluster(tmp_path / "c", first, target=second.path) as both:
            both.start()
            both.wait()
            try:
                yield Places(both, first, second, tmp_path, chance)
            finally:
                command("down", "--state", both.secondary_state)


def test_both_processes_change_places_and_back_again(places: Places) -> None:
    both = places.both
    places.write(places.first, "one")
    done = places.switch(both.primary_state, places.here)
    os.close(os.open(places.second.path, os.O_RDWR | os.O_EXCL))  # it can be mounted at once
    assert done.code == 0 and f"{both.address} is the primary now" in done.output, f"{done}\n{both.tails()}"
    until(lambda: places.role(both.secondary_state) == "primary", "the secondary is the primary")
    until(lambda: places.role(both.primary_state) == "secondary", "the primary is the secondary")
    assert both.primary.alive and both.secondary.alive, "a process ended"
    places.wait(both.secondary_state)
    assert (status_of(both.primary_state) or {})["handover"] is None and load_open_handover(both.primary_state) is None
    assert load_open_handover(both.secondary_state) is None, "it runs"
    places.write(places.second, "two")
    places.wait(both.secondary_state)
    back = places.switch(both.secondary_state, both.address)
    assert back.code == 0, f"{back}\n{both.tails()}"
    until(lambda: places.role(both.primary_state) == "primary", "it is the primary again")
    places.wait(both.primary_state)
    places.write(places.first, "three")
    places.wait(both.primary_state)
    assert command("down", "--state", both.primary_state).code == 0
    assert both.secondary.terminate() == 0
    assert_identical(places.first.path, places.second.path, SIZE, "after two changes of places")
    with mounted(places.first, places.folder / "mnt") as folder:
        assert {path.name for path in folder.iterdir()} >= {"one", "two", "three"}


def test_a_mounted_volume_does_not_change_places_and_goes_on(places: Places) -> None:
    both = places.both
    with mounted(places.first, places.folder / "mnt") as folder:
        places.switch(both.primary_state, places.here).refused(4, "is mounted at", "unmount it first")
        (folder / "more").write_bytes(b"more")
        both.wait()
    assert places.role(both.primary_state) == "primary" and places.role(both.secondary_state) == "secondary"


@pytest.mark.variant
def test_a_place_to_listen_that_is_taken_is_refused_and_nothing_changes(places: Places) -> None:
    both = places.both
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(places.here.removeprefix("unix:"))
        other.listen()
        places.switch(both.primary_state, places.here).refused(4, "in use", "--listen", "nothing was changed")
    both.wait()
    assert places.role(both.primary_state) == "primary" and places.role(both.secondary_state) == "secondary"
    assert places.switch(both.primary_state, places.here).code == 0, both.tails()
    until(lambda: places.role(both.primary_state) == "secondary", "the primary is the secondary")
    until(lambda: places.role(both.secondary_state) == "primary", "the secondary is the primary")
    assert Path(places.here.removeprefix("unix:")).is_socket()


def test_a_secondary_that_cannot_be_a_primary_names_the_reason_and_nothing_changes(
    tmp_path: Path, chance: Random
) -> None:
    with loop_device(tmp_path, SIZE) as first, cluster(tmp_path / "c", first) as both:  # its target is an image file
        both.start()
        both.wait()
        places = Places(both, first, first, tmp_path, chance)
        places.switch(both.primary_state, places.here).refused(5, "nothing was changed", "image file")
        both.wait()
        command("promote", first.path, "--state", both.primary_state).refused(2, "only a replica can be promoted")


def test_while_nobody_is_known_to_have_taken_the_place_both_sides_tell_it_and_what_to_do(places: Places) -> None:
    """A new connection finds no secondary: it answers the question, and never hears that it is to take over."""
    both, gave, asked = places.both, ("gave its place to", "promote"), ("asked", "take its place", "promote")
    both.wait()
    Path(both.address.removeprefix("unix:")).unlink()
    places.switch(both.primary_state, places.here).refused(
        5, "did not say that it is the primary", "controller promote"
    )
    until(lambda: places.role(both.primary_state) == "secondary", "the primary is a replica")
    places.tells(both.primary_state, 0, *gave, both.address)
    places.tells(both.secondary_state, 0, *asked, places.here)
    both.primary.kill()
    both.secondary.kill()
    places.tells(both.primary_state, 9, *gave, both.address)
    places.tells(both.secondary_state, 9, *asked, places.here)
    command("run", places.first.path, "--secondary", both.address, "--state", both.primary_state).refused(2, *gave)
    both.start_secondary()
    both.primary = Controller(
        both.primary_log, ["secondary", places.first.path, "--listen", places.here], both.primary_state
    )
    until(lambda: places.role(both.primary_state) == "secondary", "it is a secondary again")
    places.tells(both.primary_state, 0, *gave, both.address)
    places.tells(both.secondary_state, 0, *asked, places.here)
    command("promote", places.first.path, "--state", both.primary_state).refused(4, both.address, "--force")
    assert both.primary.alive
    done = command("promote", places.second.path, "--state", both.secondary_state)
    assert done.code == 0, done
    words = ["run", places.second.path, "--secondary", places.here]
    new = Controller(both.replica.log, words, both.secondary_state)
    try:
        until(new.answers, "it is the primary")
        places.wait(both.secondary_state)
        assert (status_of(both.primary_state) or {})["handover"] is None
        told = command("status", "--state", both.primary_state)
        assert told.code == 0 and "gave its place" not in told.output, told
    finally:
        new.end()
    assert load_open_handover(both.primary_state) is None is load_open_handover(both.secondary_state)
