"""The lines of docs/operating/failover.md, run by a program, in their order: they are what they promise."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.disks import Device, loop_device, make_filesystem, unmount
from tests.lab.images import assert_identical
from tests.lab.patience import until
from tests.lab.programs import ROOT, Controller, Status, command, free_port, status_of
from tests.lab.rounds import short

DOCUMENT = ROOT / "docs/operating/failover.md"
MIB = 1 << 20
SIZE = 64 * MIB
STAY = ("run", "secondary")
"""These commands run in the foreground until they are stopped."""


def lines_of(section: str) -> list[str]:
    """The commands of a section, in their order. A line that only shows output is no command."""
    text = DOCUMENT.read_text()
    body = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [part for part in body if part.startswith(f"{section}\n")]
    return [line.strip().removeprefix("sudo ") for line in found.splitlines() if re.match(r" {4,}sudo ", line)]


class Machines:
    """Alpha and beta of the document, on one machine: their words are replaced by what there is here."""

    def __init__(self, folder: Path, alpha: Device, beta: Device) -> None:
        self.folder, self.alpha, self.beta = folder, alpha, beta
        self.states = {"alpha": folder / "vda3", "beta": folder / "vdb"}
        self.running: dict[str, Controller] = {}
        self.output: dict[str, str] = {}
        self.data, self.mnt = folder / "data", folder / "mnt"
        for place in (self.data, self.mnt):
            place.mkdir()
        self._words = {
            "/dev/vda3": str(alpha.path), "/dev/vdb": str(beta.path), "/data": str(self.data), "/mnt": str(self.mnt),
            "/var/lib/pydbt/vda3": str(self.states["alpha"]), "/var/lib/pydbt/vdb": str(self.states["beta"]),
            "10.0.0.1:7790": f"127.0.0.1:{free_port()}", "10.0.0.2:7790": f"127.0.0.1:{free_port()}",
            "pki/alpha.identity": str(folder / "pki/alpha.identity"), "beta.identity": str(folder / "pki/beta.identity"),
        }  # fmt: skip
        for words in (("init",), ("issue", "alpha"), ("issue", "beta")):
            done = command("pki", words[0], folder / "pki", *words[1:])
            assert done.code == 0, done

    def carry_out(self, line: str) -> None:
        """One line of the document. A command that stays is waited for until it answers."""
        words = [self._words.get(word, word) for word in shlex.split(line)]
        if words[0] != "controller":
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            return
        what, arguments = words[1], words[1:]
        side = "alpha" if "vda3" in line else "beta"
        if what not in STAY:
            outcome = command(*arguments, timeout_s=120)
            assert outcome.code == 0, f"{line}: {outcome}\n{self.logs()}"
            self.output[what] = outcome.output
            return
        if side in self.running:
            self.running[side].wait()  # the lines before have ended it
        place = arguments.index("--state")
        state = Path(arguments[place + 1])
        process = Controller(self.folder / f"{side}.log", arguments[:place] + arguments[place + 2 :], state)
        self.running[side] = process
        until(lambda: status_of(state) is not None or not process.alive, f"{line} answers")
        assert process.alive, f"{line}: {process.words()[-2000:]}"

    def carry_out_all(self, section: str) -> None:
        for line in lines_of(section):
            self.carry_out(line)

    def begin(self) -> None:
        """As after 'First replication': alpha replicates to beta, and its volume is mounted."""
        make_filesystem("ext4", self.alpha.path)
        self.carry_out(
            "controller secondary /dev/vdb --listen 10.0.0.2:7790 --state /var/lib/pydbt/vdb --identity beta.identity"
        )
        self.carry_out(
            "controller run /dev/vda3 --secondary 10.0.0.2:7790 --state /var/lib/pydbt/vda3 --identity pki/alpha.identity"
        )
        self.carry_out("mount /dev/vda3 /data")
        (self.data / "before").write_bytes(b"before" * 100_000)
        self.in_sync("alpha")

    def status(self, side: str) -> Status:
        return status_of(self.states[side]) or {}

    def in_sync(self, side: str) -> None:
        done = command("wait", "--state", self.states[side], "--timeout", "120", timeout_s=130)
        assert done.code == 0, f"{done}\n{self.logs()}"
        assert self.status(side)["mode"] == "normal"

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def the_same(self, primary: str, replica: str) -> None:
        """Both disks are, once everything is on the replica."""
        self.unmount_all()
        self.in_sync(primary)
        assert command("down", "--state", self.states[primary]).code == 0
        assert self.running[replica].terminate() == 0
        disks = {"alpha": self.alpha, "beta": self.beta}
        assert_identical(disks[primary].path, disks[replica].path, SIZE, "at the end of the lines")

    def end(self) -> None:
        for process in self.running.values():
            process.end()
        for state in self.states.values():
            command("down", "--state", state)
        self.unmount_all()

    def unmount_all(self) -> None:
        for place in (self.data, self.mnt):
            if place.is_mount():
                unmount(place)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    (tmp_path / "b").mkdir()
    with loop_device(tmp_path, SIZE) as alpha, loop_device(tmp_path / "b", SIZE) as beta:
        made = Machines(tmp_path, alpha, beta)
        try:
            made.begin()
            yield made
        finally:
            made.end()


def test_the_lines_of_the_planned_change_of_places(machines: Machines) -> None:
    machines.carry_out_all("Planned: change places")
    (machines.mnt / "after").write_bytes(b"after" * 100_000)
    until(lambda: machines.status("beta").get("role") == "primary", "beta is the primary")
    machines.the_same("beta", "alpha")
    assert all(process.wait() == 0 for process in machines.running.values()), machines.logs()


@pytest.mark.variant
def test_the_lines_of_the_planned_change_of_places_by_hand(machines: Machines) -> None:
    machines.carry_out_all("Planned: change places by hand")
    (machines.mnt / "after").write_bytes(b"after" * 100_000)
    assert "lacked nothing then" in machines.output["promote"], machines.output
    assert "this side holds nothing that the other never had" in machines.output["demote"], machines.output
    machines.the_same("beta", "alpha")


@pytest.mark.parametrize("controller", short(1, "killed", "running"))
def test_the_lines_of_a_failover_and_of_the_way_back(machines: Machines, controller: str) -> None:
    """Alpha is cut off from beta, and written; so the way back is a split brain, as usual."""
    until(lambda: machines.status("beta")["primary"]["as_of"], "beta has heard of a moment")
    machines.running["alpha"].freeze()  # nothing of it is heard any more
    time.sleep(5.5)
    machines.carry_out_all("The primary is lost")
    assert "as of " in machines.output["promote"] and "are only there, and not known here" in machines.output["promote"]
    (machines.mnt / "after").write_bytes(b"after" * 100_000)
    (machines.data / "lost").write_bytes(b"lost" * 1_000_000)
    machines.running["alpha"].thaw()
    if controller == "killed":
        machines.running["alpha"].kill()
    machines.carry_out_all("The old primary comes back")
    told = re.search(r"this side holds ([0-9.]+) MiB that the other never had", machines.output["demote"])
    assert told and float(told[1]) >= 3.8, machines.output["demote"]
    if controller == "running":  # one that was killed had not written it down
        assert "last common write 20" in machines.output["demote"], machines.output["demote"]
    machines.the_same("beta", "alpha")
    assert b"after" in (machines.beta.path).read_bytes() and b"lost" * 1000 not in machines.beta.path.read_bytes()


def test_every_command_of_the_document_is_one_of_these_sections() -> None:
    """So that a new section is not forgotten."""
    sections = (
        "Planned: change places",
        "Planned: change places by hand",
        "The primary is lost",
        "The old primary comes back",
    )
    tested = [line for section in sections for line in lines_of(section)]
    text = DOCUMENT.read_text()
    (after,) = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith("After a split brain")]
    others = len(re.findall(r"^ {4,}sudo ", after, flags=re.MULTILINE))  # the same commands with the names exchanged
    assert len(tested) + others == len(re.findall(r"^ {4,}sudo ", text, flags=re.MULTILINE))
    assert len(tested) >= 14
