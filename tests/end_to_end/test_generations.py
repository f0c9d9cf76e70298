"""The side that may overwrite the other after a failover: known by the history of both, never guessed."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, loop_over, make_filesystem, mounted
from tests.lab.patience import run
from tests.lab.programs import Controller, Outcome, command
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 64 * MIB


class Pair:
    """Two disks, A and B, which take turns as the volume and its replica; each keeps one state directory."""

    def __init__(self, tmp_path: Path, a: Device, b: Device, chance) -> None:
        self.tmp_path, self.chance = tmp_path, chance
        self.a, self.b = a, b
        self.state = {a: tmp_path / "state-a", b: tmp_path / "state-b"}
        self.turn = 0

    @contextlib.contextmanager
    def replicating(self, source: Device, target: Device) -> Iterator[Cluster]:
        """From ``source`` to ``target``; nothing is started yet."""
        self.turn += 1
        with cluster(self.tmp_path / f"turn{self.turn}", source, target=target.path) as both:
            both.primary_state, both.secondary_state = self.state[source], self.state[target]
            yield both

    def write(self, disk: Device, name: str, size_bytes: int = 400_000) -> None:
        with mounted(disk, self.tmp_path / "mnt") as folder:
            (folder / name).write_bytes(self.chance.randbytes(size_bytes))

    def change(self, what: str, disk: Device, *options: str) -> Outcome:
        """`promote`, `demote` or `invalidate`."""
        return command(what, disk.path, "--state", self.state[disk], *options)

    def brought_in_sync(self, source: Device, target: Device, at_most: int = 8 * MIB) -> None:
        """``source`` is in use, so that there is free space of which it could tell, and in which only ``target`` has anything."""
        with self.replicating(source, target) as both:
            with mounted(source, self.tmp_path / "mnt"):
                both.start()
                both.wait()
            both.wait()
            assert both.status()["sent_bytes"] < at_most, "not only what differs was copied"
            assert command("down", "--state", both.primary_state).code == 0
            both.compare("in sync again")

    def refused(self, source: Device, target: Device, *words: str) -> None:
        """The primary of ``source`` ends and says why; ``target`` is not touched."""
        before = target.path.read_bytes()
        with self.replicating(source, target) as both:
            both.start_secondary()
            arguments = ["run", source.path, "--secondary", both.address, "--state", self.state[source]]
            primary = Controller(both.folder / "primary.log", arguments)
            both.primary = primary
            assert primary.wait() == 5, primary.words()
            assert "Traceback" not in primary.words()
            for word in words:
                assert word in primary.words(), primary.words()
            status = command("status", "--state", self.state[source])
            assert status.code == 9 and words[0] in status.errors, f"the refusal is forgotten: {status}"
        assert target.path.read_bytes() == before


@pytest.fixture
def pair(tmp_path, chance) -> Iterator[Pair]:
    """A replicated to B, in sync, and B promoted."""
    (tmp_path / "b").mkdir()
    with loop_device(tmp_path, SIZE) as a, loop_device(tmp_path / "b", SIZE) as b:
        make_filesystem("ext4", a.path)
        made = Pair(tmp_path, a, b, chance)
        yield made


def failed_over(pair: Pair, *, lost: bool) -> None:
    """``lost``: A was written after its secondary was gone."""
    with pair.replicating(pair.a, pair.b) as both:
        both.start()
        pair.write(pair.a, "before")
        both.wait()
        if lost:
            both.secondary.kill()
            pair.write(pair.a, "lost", 4_000_000)
        assert command("down", "--state", both.primary_state).code == 0
        done = pair.change("promote", pair.b, "--force")  # killed a moment ago, where it is
        assert done.code == 0, done
    pair.write(pair.b, "after")


def test_after_a_failover_the_old_primary_takes_only_what_differs_and_both_can_change_places_again(pair):
    failed_over(pair, lost=False)
    done = pair.change("demote", pair.a)
    assert done.code == 0 and "is a replica now" in done.output and "MiB that the other never had" not in done.output, (
        done
    )
    pair.brought_in_sync(pair.b, pair.a)
    assert pair.change("promote", pair.a).code == 0
    pair.write(pair.a, "home again")
    assert pair.change("demote", pair.b).code == 0
    pair.brought_in_sync(pair.a, pair.b)


@pytest.mark.variant
def test_a_promoted_target_that_is_larger_goes_on_through_a_device_of_the_volumes_size(tmp_path, chance):
    """Grown onto all of the disk, its file system would be replicated in part: so the whole disk is refused."""
    with loop_device(tmp_path, SIZE) as a, loop_device(tmp_path / "b", SIZE + 16 * MIB) as larger:
        make_filesystem("ext4", a.path)
        pair = Pair(tmp_path, a, larger, chance)
        failed_over(pair, lost=False)
        refused = command("run", larger.path, "--secondary", "unix:/nonexistent", "--state", pair.state[larger])
        refused.refused(2, f"has {SIZE + 16 * MIB}", f"0 {SIZE // 512} linear {larger.path} 0")
        image = Path(f"/sys/block/{larger.path.name}/loop/backing_file").read_text().strip()
        with loop_over(Path(image), "--sizelimit", SIZE) as just_it:
            pair.state[just_it] = pair.state[larger]
            assert pair.change("demote", a).code == 0
            pair.brought_in_sync(just_it, a)


@pytest.mark.parametrize("survivor", short(1, "the promoted one", "the old primary"))
def test_a_split_brain_is_refused_with_its_evidence_until_a_person_gives_one_side_up(pair, survivor):
    failed_over(pair, lost=True)
    kept, given_up = (pair.b, pair.a) if survivor == "the promoted one" else (pair.a, pair.b)
    done = pair.change("demote", given_up)
    assert done.code == 0, done
    assert "that the other never had" in done.output, done
    mine, other = (f"side is {socket.gethostname()} ({disk.path})" for disk in (kept, given_up))
    pair.refused(
        kept,
        given_up,
        "split brain",
        f"this {mine}",
        f"the other {other}",
        "last common write",
        "controller invalidate",
    )
    done = pair.change("invalidate", given_up)
    assert done.code == 0 and "inconsistent" in done.output, done
    pair.brought_in_sync(kept, given_up)


@pytest.mark.parametrize("meanwhile", short(1, "another run", "written untracked"))
def test_a_primary_put_back_to_an_earlier_state_overwrites_nothing_newer(pair, tmp_path, meanwhile):
    with pair.replicating(pair.a, pair.b) as both:
        both.start()
        both.wait()
        assert command("down", "--state", both.primary_state).code == 0
        run("cp", "-a", pair.state[pair.a], tmp_path / "last-week")
        shutil.copyfile(pair.a.path, tmp_path / "disk")
        if meanwhile == "written untracked":
            pair.write(pair.a, "untracked")
        both.start_primary()
        both.wait()
        pair.write(pair.a, "newer")
        both.wait()
        assert command("down", "--state", both.primary_state).code == 0
    shutil.rmtree(pair.state[pair.a])
    run("cp", "-a", tmp_path / "last-week", pair.state[pair.a])
    run("dd", f"if={tmp_path / 'disk'}", f"of={pair.a.path}", "bs=1M", "conv=notrunc", "oflag=direct", "status=none")
    pair.refused(pair.a, pair.b, "controller invalidate")


@pytest.mark.variant
def test_a_refused_change_of_role_names_the_reason_and_changes_nothing(pair, tmp_path):
    pair.change("demote", pair.a).refused(2, "is not a state directory")
    with pair.replicating(pair.a, pair.b) as both:
        both.start()
        both.wait()
        with mounted(pair.a, tmp_path / "mnt"):
            pair.change("demote", pair.a).refused(4, "mounted")
        assert both.status()["mode"] == "normal", "a refused demotion stopped the controller"
        pair.change("invalidate", pair.a).refused(2, "is the state directory of a primary")
        other = tmp_path / "other"
        other.write_bytes(bytes(SIZE))
        command("demote", other, "--state", pair.state[pair.a]).refused(2, "belongs to", str(pair.a.path))
        for what in ("promote", "invalidate"):
            command(what, other, "--state", pair.state[pair.b]).refused(2, "another target")
        assert both.status()["mode"] == "normal", "a command that named another disk stopped something"
        pair.change("demote", pair.b).refused(4, "in use")
        pair.change("promote", pair.a).refused(2, "only a replica can be promoted")
        both.secondary.terminate()
        pair.change("demote", pair.b).refused(2, "is a replica already", "controller secondary")
        command("run", pair.b.path, "--secondary", both.address, "--state", pair.state[pair.b]).refused(
            2, "is that of a replica", "controller promote"
        )
        both.start_secondary()
        both.wait()
        both.compare("after all the refusals")
