"""A controller whose terminal is closed goes on; it reads again what SIGHUP has it read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pydbt.controller import pki
from tests.lab.disks import loop_device
from tests.lab.identities import socket_address
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import PROGRAM, ROOT, command, free_port, status_of

MIB = 1 << 20


class Terminal:
    """A controller in the foreground of a terminal of its own, which is read until it is closed."""

    def __init__(self, words: Sequence[object]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words)], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._closing.is_set():
            if select.select([self._master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # nobody has the other end open
                    os.read(self._master, 65536)
        os.close(self._master)

    def close(self) -> None:
        """The kernel sends SIGHUP to the foreground (pty_close() in drivers/tty/pty.c)."""
        self._closing.set()
        self._reader.join()


@contextlib.contextmanager
def on_a_terminal(*words: object) -> Iterator[Terminal]:
    terminal = Terminal(words)
    try:
        yield terminal
    finally:
        terminal.close()
        terminal.process.kill()
        terminal.process.wait()


def expiry_of(state: Path) -> object:
    return ((status_of(state) or {}).get("identity") or {}).get("expires")


def test_with_an_identity_both_sides_read_it_again_and_go_on_when_their_terminals_are_closed(tmp_path: Path) -> None:
    pki.make_authority(tmp_path / "pki")
    files = {name: pki.issue(tmp_path / "pki", name) for name in ("alpha", "beta")}
    states = {name: tmp_path / name for name in files}
    address = f"127.0.0.1:{free_port()}"
    with loop_device(tmp_path, 8 * MIB) as device:
        secondary = ("secondary", tmp_path / "replica.img", "--create", "8M", "--listen", address)
        primary = ("run", device, "--secondary", address, "--whole-device")
        with (
            on_a_terminal(*secondary, "--state", states["beta"], "--identity", files["beta"]) as at_beta,
            on_a_terminal(*primary, "--state", states["alpha"], "--identity", files["alpha"]) as at_alpha,
        ):

            def in_sync() -> bool:
                ended = {terminal.process.poll() for terminal in (at_alpha, at_beta)} - {None}
                assert not ended, f"one has ended with exit code {ended}"
                return (status_of(states["alpha"]) or {}).get("mode") == "normal"

            until(in_sync, "in sync")
            before = {name: expiry_of(state) for name, state in states.items()}
            assert all(before.values())
            for name, terminal in (("alpha", at_alpha), ("beta", at_beta)):
                pki.issue(tmp_path / "pki", name, days=90, replace=True)
                terminal.close()
                until(lambda name=name: expiry_of(states[name]) not in (None, before[name]), "it is read again")
                assert terminal.process.poll() is None
            assert command("wait", "--state", states["alpha"], "--timeout", 60).code == 0
            assert command("down", "--state", states["alpha"]).code == 0
            assert at_alpha.process.wait(PATIENCE_S) == 0
            at_beta.process.send_signal(signal.SIGTERM)
            assert at_beta.process.wait(PATIENCE_S) == 0


@pytest.mark.variant
def test_without_an_identity_a_hang_up_ends_nothing_and_status_and_sigterm_work(tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = ("secondary", tmp_path / "replica.img", "--create", "8M", "--listen", socket_address(), "--state", state)
    with on_a_terminal(*words) as terminal:
        until(lambda: status_of(state) is not None, "it answers")
        terminal.close()
        with pytest.raises(subprocess.TimeoutExpired):
            terminal.process.wait(1)
        assert status_of(state) is not None
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(PATIENCE_S) == 0


@pytest.mark.variant
def test_a_controller_of_all_configured_volumes_goes_on_too_and_reads_its_configuration_again(
    tmp_path: Path, monkeypatch
) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    monkeypatch.setenv("PYDBT_VOLUMES", str(volumes))

    def configure(name: str) -> Path:
        place = f'target = "{tmp_path}/{name}.img"\ncreate = "1M"\njournal-size = "16M"\nstate = "{tmp_path}/{name}"\n'
        (volumes / f"{name}.toml").write_text(f'[secondary]\nlisten = "{socket_address()}"\n{place}')
        return tmp_path / name

    one = configure("one")
    with on_a_terminal("secondary") as terminal:
        until(lambda: status_of(one) is not None, "it answers")
        two = configure("two")
        terminal.close()
        until(lambda: status_of(two) is not None, "the other one is started")
        assert status_of(one) is not None and terminal.process.poll() is None
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(PATIENCE_S) == 0
