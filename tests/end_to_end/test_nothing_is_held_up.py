"""Nothing on the machine that goes wrong for good holds replication up for ever, and the status tells what it costs."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import resource
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import backing_files, loop_device, make_filesystem, mounted
from tests.lab.patience import PATIENCE_S, run, until
from tests.lab.programs import PROGRAM, ROOT, command, end_with_parent
from tests.lab.raw import DirectWriter

MIB = 1 << 20
WHOLE = ("--whole-device",)


@pytest.mark.variant
def test_records_that_were_lost_at_the_end_of_a_burst_leave_no_wait_behind(tmp_path: Path) -> None:
    """A controller that is frozen or starved meanwhile, and nobody who writes anything afterwards."""
    options = (*WHOLE, "--record-ring-size", "16K")
    with (
        loop_device(tmp_path, 16 * MIB) as device,
        cluster(tmp_path / "c", device, primary_options=options) as both,
    ):
        both.start()
        both.wait()
        both.primary.freeze()
        with DirectWriter(device.path, private=True) as writer:
            for number in range(600):
                writer.put(number * 4096, number.to_bytes(8, "little") * 64)
        both.primary.thaw()
        until(lambda: (both.status() or {}).get("lost_records", 0) > 0, "records were lost")
        both.until_mode("normal")
        both.wait(60)
        both.until_applied()
        assert both.differing() == 0


@contextlib.contextmanager
def primary_on_a_terminal(both: Cluster, stopped: threading.Event) -> Iterator[subprocess.Popen]:
    """Its terminal is read until ``stopped`` is set, and then stops taking output, as after Ctrl-S."""
    master, slave = pty.openpty()

    def read() -> None:
        while not stopped.is_set():
            if select.select([master], [], [], 0.05)[0]:
                os.read(master, 65536)
        termios.tcflow(slave, termios.TCOOFF)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process = subprocess.Popen(
        [*PROGRAM, "run", both.source.path, "--secondary", both.address, "--state", both.primary_state, *WHOLE],
        stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True, preexec_fn=end_with_parent,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    try:
        yield process
    finally:
        stopped.set()
        reader.join()
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def test_a_terminal_that_is_stopped_stops_nothing_else(tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 * MIB) as device, cluster(tmp_path / "c", device) as both:
        both.start_secondary()
        stopped = threading.Event()
        with primary_on_a_terminal(both, stopped) as process:
            until(lambda: (both.status() or {}).get("mode") == "normal", "in sync")
            stopped.set()
            for number in range(3):  # a log line and a new live line for each
                with DirectWriter(device.path) as writer:
                    writer.put(number * 4096, bytes([number + 1]) * 4096)
                both.replica.process.kill()
                both.until_mode("unsynchronized")
                both.start_secondary()
                both.until_mode("normal")
            both.wait()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        both.until_applied()
        assert both.differing() == 0


def test_sectors_that_cannot_be_read_hold_nothing_else_up_and_are_named(tmp_path: Path) -> None:
    """The file behind the device ends early, so that its last 64 KiB cannot be read."""
    size = 16 * MIB
    with (
        loop_device(tmp_path, size) as device,
        cluster(tmp_path / "c", device, primary_options=WHOLE) as both,
        DirectWriter(device.path, private=True) as writer,
    ):
        for offset in range(0, size, MIB):
            writer.put(offset, os.urandom(MIB))
        both.start()
        both.wait()
        os.truncate(backing_files()[device.path.name], size - 65536)
        writer.put(0, os.urandom(4096))  # explains the file's new times: a bad sector is no change of what lies below
        both.wait()

        done = command("verify", "--state", both.primary_state, timeout_s=PATIENCE_S)
        assert done.code == 6 and "64.0 KiB" in done.errors, done
        status = both.status()
        places = [{"offset_bytes": size - 65536, "length_bytes": 65536}]
        assert status["unreadable"] == {"bytes": 65536, "places": places}
        assert (status["mode"], status["replica_state"], status["out_of_sync_bytes"]) == ("normal", "consistent", 65536)

        both.replica.process.kill()  # and a resynchronization ends as well
        both.until_mode("unsynchronized")
        writer.put(0, os.urandom(MIB))
        both.start_secondary()
        both.until_mode("normal")
        assert both.status()["unreadable"]["places"] == places
        assert both.try_wait(60).code == 6
        both.primary.kill()  # what is written down tells the next run
        both.start_primary()
        both.until_mode("normal")
        assert both.status()["unreadable"]["places"] == places

        writer.put(size - 65536, os.urandom(65536))  # a disk gives a bad sector that is written another place
        both.wait()
        until(lambda: both.status()["replica_state"] == "up-to-date", "up to date")
        assert both.status()["unreadable"]["bytes"] == 0
        both.until_applied()
        assert both.differing() == 0


@pytest.mark.variant
def test_a_side_without_a_free_descriptor_goes_on_when_it_has_some(tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 * MIB) as device, cluster(tmp_path / "c", device, primary_options=WHOLE) as both:
        both.start()
        both.wait()
        for side in (both.primary, both.secondary):
            usual = resource.prlimit(side.process.pid, resource.RLIMIT_NOFILE)
            taken = {int(name) for name in os.listdir(f"/proc/{side.process.pid}/fd")}
            lowest_free = next(number for number in itertools.count() if number not in taken)
            resource.prlimit(side.process.pid, resource.RLIMIT_NOFILE, (lowest_free, usual[1]))
            with DirectWriter(device.path) as writer:
                writer.put(0, os.urandom(MIB))
            time.sleep(8)  # more than a look at what is seen each five seconds
            resource.prlimit(side.process.pid, resource.RLIMIT_NOFILE, usual)
            assert side.alive, both.tails()
            both.wait()
        assert not both.status()["tainted"]
        both.compare("after a time without descriptors")


@pytest.mark.variant
def test_commands_that_are_killed_while_they_wait_keep_nobody_else_out(tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 * MIB) as device, cluster(tmp_path / "c", device) as both:
        both.start()
        both.wait()
        both.replica.process.kill()
        with DirectWriter(device.path) as writer:
            writer.put(0, b"x" * 4096)
        both.until_mode("unsynchronized")
        for _ in range(5):
            waiting = [
                subprocess.Popen(
                    [*PROGRAM, "wait", "--state", both.primary_state], cwd=ROOT, stderr=subprocess.DEVNULL,
                    preexec_fn=end_with_parent,
                )
                for _ in range(14)
            ]  # fmt: skip
            time.sleep(3)
            for process in waiting:
                process.kill()
                process.wait()
        assert command("status", "--state", both.primary_state).code == 0
        assert command("resume", "--state", both.primary_state).code == 0
        assert command("down", "--state", both.primary_state).code == 0


@contextlib.contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Nothing that is written to this file system ends."""
    run("fsfreeze", "-f", folder)
    try:
        yield
    finally:
        run("fsfreeze", "-u", folder)


def test_a_state_disk_that_hangs_holds_no_stream_up_and_no_name_is_told_before_it_answers(tmp_path: Path) -> None:
    """Captured writes are drained and sent meanwhile. After a cut the new name of the content is to be on that disk first."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(loop_device(tmp_path, 16 * MIB))
        disk = stack.enter_context(loop_device(tmp_path / "small", 32 * MIB))
        make_filesystem("ext4", disk.path)
        folder = stack.enter_context(mounted(disk, tmp_path / "state"))
        both = stack.enter_context(cluster(tmp_path / "c", device, primary_options=WHOLE, wired=True))
        writer = stack.enter_context(DirectWriter(device.path, private=True))
        both.primary_state = folder / "primary"
        both.start()
        both.wait()
        numbers = itertools.count()

        def write(times: int) -> None:
            for number in itertools.islice(numbers, times):
                writer.put(number % 1000 * 4096, number.to_bytes(8, "little") * 512)

        with hanging(folder):
            until(
                lambda: write(5) or "is being written for more than" in " ".join(both.status()["notices"]),
                "the status tells of it",
            )
            both.wait()
            both.until_applied()
            assert both.differing() == 0 and both.status()["mode"] == "normal"
            both.wire.cut()
            until(lambda: write(5) or both.status()["mode"] == "unsynchronized", "the outage is found")
            both.wire.mend()
            write(1000)
            time.sleep(3)  # enough to connect, if it only tried
            status = both.status()
            assert (status["mode"], status["connected"]) == ("unsynchronized", False), status
            assert status["out_of_sync_bytes"] >= 1000 * 4096
        both.until_mode("normal")
        both.wait()
        assert both.status()["notices"] == []
        both.until_applied()
        assert both.differing() == 0
