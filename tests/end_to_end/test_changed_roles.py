"""Configured sides that changed places, or of which one was promoted, start again in the roles that their states record.

Both sides are on this machine, each with a folder of files of its own. The disks hold no file system that is mounted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.lab.disks import Device, loop_device
from tests.lab.identities import socket_address
from tests.lab.images import assert_identical
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import Controller, Outcome, command, status_of

MIB = 1 << 20
SIZE = 64 * MIB
BLOCK_BYTES = 4096


class Side:
    """A disk, the file ``data`` in a folder of its own, and the command that its unit would run, whatever its role is."""

    def __init__(self, folder: Path, device: Device, unit_command: str) -> None:
        self.folder, self.device, self.unit_command = folder, device, unit_command
        self.state, self.address = folder / "state", socket_address()
        self.environment = {"PYDBT_VOLUMES": str(folder / "volumes")}
        self._process: Controller | None = None
        (folder / "volumes").mkdir(parents=True)

    def configure(self, *tables: str) -> None:
        (self.folder / "volumes/data.toml").write_text("".join(tables))

    def start(self) -> Controller:
        prefix = ["env", *(f"{name}={value}" for name, value in self.environment.items())]
        self._process = Controller(self.folder / "log", [self.unit_command, "data"], prefix=prefix)
        return self._process

    def end(self) -> None:
        """As its unit is stopped: programs stay, and track."""
        if self._process is not None and self._process.alive:
            assert self._process.terminate() == 0, self.words()

    def down(self) -> None:
        """For good. A side that only answers its old primary has nothing that could be asked."""
        self.run("down", "data")
        if self._process is not None:
            if self._process.alive and not self.status():
                self._process.process.terminate()
            self._process.wait()

    def run(self, *words: object, timeout_s: float = 200) -> Outcome:
        return command(*words, timeout_s=timeout_s, **self.environment)

    def status(self) -> dict[str, Any]:
        return status_of(self.state) or {}

    def words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def until_role(self, role: str) -> None:
        process = self._process
        assert process is not None
        until(lambda: self.status().get("role") == role or not process.alive, f"it is the {role}")
        assert process.alive, self.words()

    def until_in_sync(self) -> None:
        done = self.run("wait", "data", "--timeout", f"{PATIENCE_S:g}", timeout_s=PATIENCE_S + 30)
        assert done.code == 0, f"{done}\n{self.words()}"

    def write(self, chance: Random, blocks: int = 5) -> None:
        with self.device.path.open("r+b", buffering=0) as disk:
            for _ in range(blocks):
                disk.seek(chance.randrange(SIZE // BLOCK_BYTES) * BLOCK_BYTES)
                disk.write(chance.randbytes(BLOCK_BYTES))


class Places:
    """*alpha* began as the primary and *beta* as the secondary; in sync."""

    def __init__(self, alpha: Side, beta: Side, *, with_tables: bool) -> None:
        self.alpha, self.beta = alpha, beta
        run_too = f'[run]\nsecondary = "{alpha.address}"\n' if with_tables else ""
        secondary_too = f'[secondary]\nlisten = "{alpha.address}"\n' if with_tables else ""
        alpha.configure(
            f'[run]\nsource = "{alpha.device.path}"\nsecondary = "{beta.address}"\nstate = "{alpha.state}"\n',
            secondary_too,
        )
        beta.configure(
            f'[secondary]\ntarget = "{beta.device.path}"\nlisten = "{beta.address}"\nstate = "{beta.state}"\n', run_too
        )
        beta.start()
        beta.until_role("secondary")
        alpha.start()
        alpha.until_role("primary")
        alpha.until_in_sync()

    def start_again(self) -> None:
        for side in (self.alpha, self.beta):
            side.end()
        for side in (self.alpha, self.beta):
            side.start()

    def same(self, when: str) -> None:
        for side in (self.alpha, self.beta):
            side.down()
        assert_identical(self.alpha.device.path, self.beta.device.path, SIZE, when)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    with ExitStack() as stack:
        for name in ("alpha", "beta"):
            (tmp_path / name).mkdir()
        first = stack.enter_context(loop_device(tmp_path / "alpha", SIZE))
        second = stack.enter_context(loop_device(tmp_path / "beta", SIZE))
        both = Side(tmp_path / "alpha", first, "run"), Side(tmp_path / "beta", second, "secondary")
        for side in both:
            stack.callback(side.down)
        yield both


@pytest.mark.parametrize("with_tables", [False, True], ids=["by the state alone", "by two tables"])
def test_sides_that_changed_places_start_again_in_their_new_roles_and_compare_nothing(
    sides: tuple[Side, Side], with_tables: bool, chance: Random
) -> None:
    both = Places(*sides, with_tables=with_tables)
    alpha, beta = sides
    words = () if with_tables else ("--listen", alpha.address)
    done = alpha.run("switchover", "data", *words)
    assert done.code == 0, f"{done}\n{alpha.words()}"
    for turn in range(2):
        alpha.until_role("secondary")
        beta.until_role("primary")
        beta.write(chance)
        beta.until_in_sync()
        if turn == 0:
            both.start_again()
    status = beta.status()
    assert (status["mode"], status["tainted"]) == ("normal", False), status
    assert status["statistics"]["compared_bytes"] <= 20 * BLOCK_BYTES, "nothing but what was written"
    for side, role in ((alpha, "secondary"), (beta, "run")):
        told = side.run("status", "data")
        assert told.code == 0 and "role_differs" in side.run("status", "data", "--json").output, told
        assert f"it starts as [{role}]" in side.run("configcheck", "data").output
    back = beta.run("switchover", "data")
    assert back.code == 0, f"{back}\n{beta.words()}"
    both.start_again()
    alpha.until_role("primary")
    beta.until_role("secondary")
    alpha.write(chance)
    alpha.until_in_sync()
    assert "role_differs" not in alpha.run("status", "data", "--json").output
    both.same("after two changes of places")


def test_after_a_promotion_the_unit_of_the_replica_is_the_primary_and_the_demoted_side_follows_it(
    sides: tuple[Side, Side], chance: Random
) -> None:
    both = Places(*sides, with_tables=True)
    alpha, beta = sides
    alpha.down()
    done = beta.run("promote", "data")
    assert done.code == 0, f"{done}\n{beta.words()}"
    beta.until_role("primary")
    beta.write(chance)
    gate = alpha.run("gate", "data")
    assert gate.code == 12 and "it was promoted" in gate.errors, gate
    assert alpha.run("demote", "data").code == 0
    alpha.start()
    alpha.until_role("secondary")
    beta.until_in_sync()
    both.start_again()
    alpha.until_role("secondary")
    beta.until_role("primary")
    beta.write(chance)
    beta.until_in_sync()
    # Its old primary follows it by now, and its own former address is where it waits next.
    back = beta.run("switchover", "data")
    assert back.code == 0, f"{back}\n{beta.words()}"
    alpha.until_role("primary")
    alpha.until_in_sync()
    both.same("after a failover and the way back")


def test_a_demoted_side_that_knows_no_address_is_refused_and_one_line_in_its_file_is_enough(
    sides: tuple[Side, Side],
) -> None:
    Places(*sides, with_tables=False)
    alpha, beta = sides
    alpha.down()
    assert beta.run("promote", "data").code == 0
    until(lambda: beta.status() == {}, "it answers its old primary, and replicates nothing")
    told = beta.run("status", "data")
    assert "add a table [run] with secondary" in told.output + told.errors, told
    assert alpha.run("demote", "data").code == 0
    alpha.run("run", "data").refused(2, "data is not started", "add a table [secondary] with listen")
    file = alpha.folder / "volumes/data.toml"
    file.write_text(file.read_text() + f'[secondary]\nlisten = "{alpha.address}"\n')
    assert alpha.run("configcheck", "data").code == 0
    alpha.start()
    alpha.until_role("secondary")
