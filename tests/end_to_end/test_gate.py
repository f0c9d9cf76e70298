"""An old primary does not come back by itself: its gate asks the other machine, and no byte is written on its disk.

A reboot is imitated: the controller is killed, and its programs are taken out of the kernel. Then come the gate, the check and
the mount, each only if the one before ended well, as systemd does it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.kernel.capture import Capture
from pydbt.store.volume_state import load_state
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted, unmount
from tests.lab.identities import identity
from tests.lab.patience import run, until
from tests.lab.programs import Controller, Outcome, command

SIZE = 64 << 20
SHUT = 12


class Boot:
    """The old primary as it comes up again, with its volume configured."""

    def __init__(self, both: Cluster, folder: Path) -> None:
        self.both, self.folder = both, folder
        self.mount_point = folder / "srv"
        self.mount_point.mkdir()
        (folder / "volumes").mkdir()
        self.configure()

    def configure(self, *lines: str) -> None:
        keys = {
            "source": self.both.source.path, "secondary": self.both.address, "state": self.both.primary_state,
            "identity": identity("primary"),
        }  # fmt: skip
        text = ["[run]", *(f'{key} = "{value}"' for key, value in keys.items()), *lines]
        (self.folder / "volumes/data.toml").write_text("\n".join(text) + "\n")

    def content(self) -> str:
        self.both.source.flush()
        return hashlib.sha256(self.both.source.contents()).hexdigest()

    def gate(self) -> Outcome:
        return command("gate", "data", PYDBT_VOLUMES=str(self.folder / "volumes"))

    def status(self) -> Outcome:
        return command("status", "data", PYDBT_VOLUMES=str(self.folder / "volumes"))

    def gated_mount(self) -> Outcome:
        """The gate, the check with its replay of the journal, and the mount."""
        outcome = self.gate()
        if outcome.code == 0:
            run("e2fsck", "-p", self.both.source.path, check=False)
            run("mount", self.both.source.path, self.mount_point)
        return outcome

    def listener(self) -> Controller:
        """``controller secondary`` on the side that was promoted."""
        both = self.both
        words = ["secondary", both.target, "--listen", both.address, *both.secondary_options]
        return Controller(self.folder / "listener.log", words, both.secondary_state, cable=both.wire)


@pytest.fixture
def boot(tmp_path: Path, chance: random.Random) -> Iterator[Boot]:
    """Replicated, written to while mounted, and then the power of the primary failed; its disk has a journal to replay."""
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, wired=True) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                (folder / "file").write_bytes(chance.randbytes(3 << 20))
                both.wait()
                (folder / "last").write_bytes(chance.randbytes(1 << 20))
                run("sync", "-f", folder)
                # The disk as it is in the middle: the file system is not unmounted cleanly.
                device.flush()
                caught = device.contents()
            both.primary.kill()
            state = load_state(both.primary_state)
            assert state is not None
            Capture.remove_pins(pin_dir_of(state))
            with open(device.path, "r+b", buffering=0) as disk:
                disk.write(caught.tobytes())
            device.flush()
            yield Boot(both, tmp_path)


def test_after_a_failover_the_old_primary_is_not_mounted_and_not_a_byte_is_written_there(boot: Boot) -> None:
    both, before = boot.both, boot.content()
    assert boot.gate().code == 0, "its secondary is still a replica"
    promoted = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
    assert promoted.code == 0, promoted

    boot.configure('on-unreachable = "refuse"')
    silent = boot.gated_mount()
    assert silent.code == 5 and "not every secondary answers" in silent.errors, silent
    listener = boot.listener()
    try:
        until(lambda: "its old primary is told" in listener.words() or not listener.alive, "it listens")
        assert listener.alive, listener.words()
        shut = boot.gated_mount()
        assert shut.code == SHUT and "was promoted at" in shut.errors and "controller demote data" in shut.errors, shut
        assert not boot.mount_point.is_mount() and boot.content() == before, "something was written on the old primary"
        status = boot.status()
        assert status.code == 9 and "MUST NOT BE MOUNTED HERE" in status.errors, status

        again = Controller(boot.folder / "again.log", ["run", both.source.path, "--secondary", both.address,
                                                       *both.primary_options], both.primary_state)  # fmt: skip
        assert again.wait() == 5 and "was promoted at" in again.words(), again.words()
        assert boot.content() == before
        run_there = command("secondary", both.target, "--state", both.secondary_state, "--replay-only")
        assert run_there.code == 2 and "nothing may overwrite it" in run_there.errors
    finally:
        assert listener.terminate() == 0
    assert command("down", "--state", both.primary_state).code in (0, 9)
    boot.configure('on-unreachable = "wait 1s"')
    unheard = boot.gated_mount()
    try:
        assert unheard.code == 0 and "NOBODY KNOWS" in unheard.errors, unheard
        assert "mounted although a secondary did not answer" in boot.status().errors
    finally:
        unmount(boot.mount_point)


@pytest.mark.variant
def test_a_secondary_that_is_promoted_while_the_gate_waits_for_it_shuts_the_gate(boot: Boot) -> None:
    both, before = boot.both, boot.content()
    both.wire.cut()
    boot.configure('on-unreachable = "wait 10m"')
    promoted = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
    assert promoted.code == 0, promoted
    listener = boot.listener()
    gate = Controller(
        boot.folder / "gate.log", ["gate", "data"], prefix=["env", f"PYDBT_VOLUMES={boot.folder / 'volumes'}"]
    )
    try:
        until(lambda: "asked again" in gate.words() or not gate.alive, "the gate waits")
        assert gate.alive, gate.words()
        both.wire.mend()
        assert gate.wait() == SHUT, gate.words()
        assert boot.content() == before
    finally:
        gate.end()
        assert listener.terminate() == 0
