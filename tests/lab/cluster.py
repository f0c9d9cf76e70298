"""A real primary and a real secondary as processes, with every way to hurt them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydbt.controller import control
from pydbt.core.errors import PydbtError
from tests.lab.cable import Cable, cable
from tests.lab.disks import BlockDevice, run
from tests.lab.images import assert_identical, differing_blocks
from tests.lab.programs import Daemon, Outcome, command, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """One volume, its replica in an image file, and the two controllers.

    ``wire`` puts the secondary behind a cable that can be cut; without, both talk over loopback.
    """

    def __init__(
        self,
        folder: Path,
        source: BlockDevice,
        *,
        wire: Cable | None = None,
        primary_options: tuple[object, ...] = (),
        secondary_options: tuple[object, ...] = (),
        target: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.source, self.wire = folder, source, wire
        self.size_bytes = source.size_sectors * 512
        self.target = target or folder / "replica.img"
        self.primary_state, self.secondary_state = folder / "primary", folder / "secondary"
        self.address = f"{wire.far_address if wire else '127.0.0.1'}:{free_port()}"
        plain = ("--insecure",) if wire else ()
        self.primary_options = (*primary_options, *plain)
        self.secondary_options = (*secondary_options, *plain)
        self.primary: Daemon | None = None
        self.secondary: Daemon | None = None

    # --- coming and going ---------------------------------------------------------------------------------
    def start_secondary(self) -> None:
        create = () if self.target.exists() else ("--create", self.size_bytes)
        arguments = ["secondary", self.target, "--listen", self.address, "--state", self.secondary_state]
        self.secondary = Daemon(
            self.folder / "secondary.log",
            [*arguments, *create, *self.secondary_options],
            self.wire.enter if self.wire else None,
        )
        heard = self.secondary.words().count("listening on")
        until(
            lambda: (
                self.secondary.words().count("listening on") > heard
                or self.secondary_status()
                or not self.secondary.alive
            ),
            "the secondary listens",
        )
        assert self.secondary.alive, f"the secondary did not start: {self.secondary.words()[-2000:]}"

    def start_primary(self) -> None:
        arguments = ["run", self.source.path, "--secondary", self.address, "--state", self.primary_state]
        self.primary = Daemon(self.folder / "primary.log", [*arguments, *self.primary_options])
        until(lambda: self.status() is not None or not self.primary.alive, "the primary answers")
        assert self.primary.alive, f"the primary did not start: {self.primary.words()[-2000:]}"

    def start(self) -> None:
        self.start_secondary()
        self.start_primary()

    def close(self) -> None:
        """Leave nothing, whatever happened."""
        for daemon in (self.primary, self.secondary):
            if daemon is not None:
                daemon.end()
        if (self.primary_state / "volume.json").exists() or self.primary_state.exists():
            command("down", "--state", self.primary_state)

    # --- asking -------------------------------------------------------------------------------------------
    def status(self) -> dict[str, Any] | None:
        return _ask(self.primary_state)

    def secondary_status(self) -> dict[str, Any] | None:
        return _ask(self.secondary_state)

    def wait(self, timeout_s: float = 120) -> None:
        """``controller wait``, which must come true."""
        done = self.try_wait(timeout_s)
        assert done.code == 0, f"wait ended with {done}: {self.status()}\n{self.tails()}"

    def try_wait(self, timeout_s: float) -> Outcome:
        return command("wait", "--state", self.primary_state, "--timeout", timeout_s, timeout_s=timeout_s + 60)

    def until_mode(self, *modes: str) -> None:
        try:
            until(lambda: (self.status() or {}).get("mode") in modes, f"mode is {' or '.join(modes)}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status()}\n{self.tails()}") from None

    def give_time_to(self, mode: str, seconds: float) -> None:
        """Let it get into a mode, if its load and its rings let it."""
        with contextlib.suppress(AssertionError):
            until(lambda: (self.status() or {}).get("mode") == mode, mode, seconds)

    def tails(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2500:]}" for log in self.logs if log.exists())

    @property
    def logs(self) -> tuple[Path, Path]:
        """What both sides say: the primary's and the secondary's."""
        return self.folder / "primary.log", self.folder / "secondary.log"

    # --- looking at the replica ---------------------------------------------------------------------------
    def snapshot(self, name: str) -> Path:
        """The last consistent state of the replica of a killed secondary, from a copy of image and state directory.

        The replica itself stays as the kill left it, so that the secondary recovers by its own means.
        """
        assert self.secondary is None or not self.secondary.alive
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        run("cp", "-a", "--sparse=always", self.target, place / "replica.img")
        run("cp", "-a", self.secondary_state, place / "state")
        done = command("secondary", place / "replica.img", "--state", place / "state", "--replay-only")
        assert done.code == 0, f"{done}\n{self.tails()}"
        self.replayed = done.output.strip()
        return place / "replica.img"

    def until_applied(self) -> None:
        """A living secondary has nothing left to apply."""
        until(
            lambda: (self.secondary_status() or {"unapplied_bytes": 1})["unapplied_bytes"] == 0,
            "the journal is applied",
        )

    def compare(self, when: str) -> None:
        """End the secondary, replay its journal, and find both images identical."""
        code = self.secondary.terminate()
        assert code == 0, f"the secondary ended with {code}: {self.tails()}"
        done = command("secondary", self.target, "--state", self.secondary_state, "--replay-only")
        assert done.code == 0, done
        try:
            assert_identical(self.source.path, self.target, self.size_bytes, when)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tails()}") from None

    def differing(self) -> int:
        """4 KiB blocks that differ now; the secondary may run, if it applies nothing."""
        return len(differing_blocks(self.source.path, self.target, self.size_bytes))


def _ask(state_dir: Path) -> dict[str, Any] | None:
    try:
        return control.call(state_dir, {"command": "status"}, 10)
    except (PydbtError, OSError, json.JSONDecodeError):
        return None


@contextlib.contextmanager
def cluster(folder: Path, source: BlockDevice, *, wired: bool = False, **options: Any) -> Iterator[Cluster]:
    """A cluster that is not started yet, and leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(cable()) if wired else None
        both = Cluster(folder, source, wire=wire, **options)
        stack.callback(both.close)
        yield both
