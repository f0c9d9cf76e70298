"""A real primary and a real secondary as processes, with every way to hurt them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydbt.cli.stopping import stop_running
from pydbt.controller import control
from pydbt.controller.primary.leftover import detach_leftover
from pydbt.controller.registry import claimed_state_dir
from pydbt.core.errors import PydbtError
from pydbt.core.units import SECTOR_BYTES
from tests.lab.cable import Cable, laid_cable
from tests.lab.disks import Device
from tests.lab.identities import identity, socket_address
from tests.lab.images import assert_identical, differing_blocks
from tests.lab.patience import PATIENCE_S, run, until
from tests.lab.programs import ROOT, Controller, Outcome, Status, command, free_port, status_of


def proof(name: str, wire: Cable | None, plain: bool, options: Sequence[object]) -> tuple[object, ...]:
    """The options by which a side proves itself, if it names none itself."""
    if plain:
        return ("--insecure",)
    return ("--identity", identity(name)) if wire is not None and "--identity" not in options else ()


def untrack(state_dir: Path) -> None:
    """No program of the volume of a state directory is left in the kernel; nothing where there is no volume."""
    if state_dir.exists():
        with contextlib.suppress(PydbtError):
            stop_running(state_dir, PATIENCE_S)
            with claimed_state_dir(state_dir):
                detach_leftover(state_dir)


class Source:
    """A volume, and the primary that replicates it."""

    def __init__(self, folder: Path, source: Device, options: Sequence[object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.source, self.primary_options = folder, source, tuple(options)
        self.size_bytes = source.size_sectors * SECTOR_BYTES
        self.primary_state, self.primary_log = folder / "primary", folder / "primary.log"
        self.tree = ROOT  # where its program is
        self.prefix: Sequence[str] = ()  # of its command line
        self._primary: Controller | None = None

    @property
    def primary(self) -> Controller:
        assert self._primary is not None, "the primary was not started"
        return self._primary

    @primary.setter
    def primary(self, controller: Controller) -> None:
        self._primary = controller

    def run_primary(self, *addresses: str) -> None:
        """Start it, and wait until it answers."""
        named = [word for address in addresses for word in ("--secondary", address)]
        words = ["run", self.source.path, *named, *self.primary_options]
        self.primary = Controller(self.primary_log, words, self.primary_state, tree=self.tree, prefix=self.prefix)
        until(lambda: self.status() is not None or not self.primary.alive, "the primary answers")
        assert self.primary.alive, f"the primary did not start: {self.primary.words()[-2000:]}"

    def status(self) -> Status | None:
        return status_of(self.primary_state)

    def try_wait(self, timeout_s: float) -> Outcome:
        """What ``controller wait`` asks. Starting the command would take longer than most waits."""
        try:
            control.call(self.primary_state, {"command": "wait", "timeout": timeout_s, "any": False}, timeout_s + 60)
        except PydbtError as error:
            return Outcome(error.exit_code, "", str(error))
        return Outcome(0, "", "")

    def end_primary(self) -> None:
        """Nothing of it is left, whatever state it is in."""
        if self._primary is not None:
            self._primary.end()
        untrack(self.primary_state)


class Replica:
    """One secondary, in an image file or on a device, and every way to hurt it."""

    def __init__(
        self,
        target: Path,
        state: Path,
        log: Path,
        size_bytes: int,
        *,
        wire: Cable | None = None,
        plain: bool = False,
        options: Sequence[object] = (),
    ) -> None:
        self.target, self.state, self.log, self.size_bytes, self.wire = target, state, log, size_bytes, wire
        self.options: tuple[object, ...] = (*options, *proof("replica", wire, plain, options))
        if wire is not None or plain:
            self.address = f"{wire.far_address if wire else '127.0.0.1'}:{free_port()}"
        else:
            self.address = socket_address()
        self.tree = ROOT  # where its program is
        self.prefix: Sequence[str] = ()  # of its command line
        self._process: Controller | None = None

    @property
    def process(self) -> Controller:
        assert self._process is not None, "the secondary was not started"
        return self._process

    def start(self) -> None:
        """An image that is not there is created."""
        create = () if self.target.exists() else ("--create", self.size_bytes)
        words = ["secondary", self.target, "--listen", self.address, *create, *self.options]
        process = self._process = Controller(
            self.log, words, self.state, cable=self.wire, tree=self.tree, prefix=self.prefix
        )
        until(lambda: self.status() is not None or not process.alive, "the secondary answers")
        assert process.alive, f"the secondary did not start: {process.words()[-2000:]}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def status(self) -> Status | None:
        return status_of(self.state)

    def until_applied(self) -> None:
        """A living secondary has nothing left to apply."""
        until(lambda: (self.status() or {"unapplied_bytes": 1})["unapplied_bytes"] == 0, "the journal is applied")

    def end(self) -> None:
        if self._process is not None:
            self._process.end()

    def compare(self, source: Path, when: str) -> None:
        """End it, replay its journal, and find the image identical."""
        code = self.process.terminate()
        assert code == 0, f"the secondary ended with {code}: {self.process.words()[-2500:]}"
        done = command("secondary", self.target, "--state", self.state, "--replay-only")
        assert done.code == 0, done
        assert_identical(source, self.target, self.size_bytes, when)


class Cluster(Source):
    """One volume, its replica, and the two controllers.

    ``wire`` puts the secondary behind a cable that can be cut, with identities on both sides; ``plain`` is plain TCP over
    loopback; without both, the two talk over a socket of this machine.
    """

    def __init__(
        self,
        folder: Path,
        source: Device,
        *,
        wire: Cable | None = None,
        plain: bool = False,
        primary_options: Sequence[object] = (),
        secondary_options: Sequence[object] = (),
        target: Path | None = None,
    ) -> None:
        super().__init__(folder, source, (*primary_options, *proof("primary", wire, plain, primary_options)))
        self._wire = wire
        self.replica = Replica(
            target or folder / "replica.img",
            folder / "secondary",
            folder / "secondary.log",
            self.size_bytes,
            wire=wire,
            plain=plain,
            options=secondary_options,
        )

    @property
    def wire(self) -> Cable:
        assert self._wire is not None, "it is not wired"
        return self._wire

    @property
    def secondary(self) -> Controller:
        return self.replica.process

    @property
    def secondary_options(self) -> tuple[object, ...]:
        return self.replica.options

    @secondary_options.setter
    def secondary_options(self, options: Sequence[object]) -> None:
        self.replica.options = tuple(options)

    @property
    def target(self) -> Path:
        return self.replica.target

    @property
    def secondary_state(self) -> Path:
        return self.replica.state

    @secondary_state.setter
    def secondary_state(self, place: Path) -> None:
        self.replica.state = place

    @property
    def address(self) -> str:
        return self.replica.address

    # --- coming and going ---------------------------------------------------------------------------------
    def start_secondary(self) -> None:
        self.replica.start()

    def start_primary(self) -> None:
        self.run_primary(self.address)

    def start(self) -> None:
        self.start_secondary()
        self.start_primary()

    def close(self) -> None:
        """Leave nothing, whatever happened."""
        try:
            self.end_primary()
        finally:
            self.replica.end()
            untrack(self.secondary_state)  # the two may have changed places

    # --- asking -------------------------------------------------------------------------------------------
    def secondary_status(self) -> Status | None:
        return self.replica.status()

    def wait(self, timeout_s: float = 120) -> None:
        """``controller wait``, which must come true."""
        done = self.try_wait(timeout_s)
        assert done.code == 0, f"wait ended with {done}: {self.status()}\n{self.tails()}"

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
        return self.primary_log, self.replica.log

    # --- looking at the replica ---------------------------------------------------------------------------
    def snapshot(self, name: str) -> Path:
        """The last consistent state of the replica of a killed secondary, from a copy of image and state directory.

        The replica itself stays as the kill left it, so that the secondary recovers by its own means.
        """
        assert not self.replica.alive
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
        self.replica.until_applied()

    def compare(self, when: str) -> None:
        """End the secondary, replay its journal, and find both images identical."""
        try:
            self.replica.compare(self.source.path, when)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tails()}") from None

    def differing(self) -> int:
        """4 KiB blocks that differ now; the secondary may run, if it applies nothing."""
        return len(differing_blocks(self.source.path, self.target, self.size_bytes))


@contextlib.contextmanager
def cluster(folder: Path, source: Device, *, wired: bool = False, **options: Any) -> Iterator[Cluster]:
    """A cluster that is not started yet, and leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(laid_cable()) if wired else None
        both = Cluster(folder, source, wire=wire, **options)
        stack.callback(both.close)
        yield both
