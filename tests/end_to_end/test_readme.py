"""The README's lines for a real replication, run as they stand there but for the names of disks, folders and addresses."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.lab.cable import Cable, laid_cable
from tests.lab.disks import loop_device
from tests.lab.images import assert_identical
from tests.lab.patience import until
from tests.lab.programs import ROOT, Controller, command
from tests.lab.raw import write_scattered_blocks

SIZE = 32 << 20
COMMANDS = ("pki", "pki", "pki", "secondary", "run")


def lines_of(heading: str) -> Iterator[list[str]]:
    """The words of each command below a heading of the README, without sudo."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index(f"## {heading}") :].partition("\n## ")[0]
    for line in re.findall(r"^    (\S.*)$", section, re.MULTILINE):
        words = shlex.split(line, comments=True)
        assert words.pop(0) == "sudo", f"everything in it needs root: {line}"
        yield words


def begin(service: str, arguments: list[object], folder: Path, cable: Cable) -> Controller:
    """One of the two that run in the foreground; the secondary once it listens."""
    if service == "run":
        return Controller(folder / "primary.log", arguments)
    shutil.copy(folder / "pki" / "beta.identity", folder)
    secondary = Controller(folder / "secondary.log", arguments, cable=cable)
    until(lambda: "listening on" in secondary.words() or not secondary.alive, "the secondary listens")
    return secondary


def test_the_lines_for_a_real_replication_replicate(tmp_path: Path) -> None:
    with ExitStack() as stack:
        source, target = (stack.enter_context(loop_device(tmp_path / name, SIZE)) for name in ("alpha", "beta"))
        cable = stack.enter_context(laid_cable())
        write_scattered_blocks(source.path, range(0, SIZE // 4096, 7), 4096, 1)
        ours = {
            "/dev/vda3": source.path,
            "/dev/vdb": target.path,
            "10.0.0.2:7790": f"{cable.far_address}:7790",
            "/var/lib/pydbt/vda3": tmp_path / "lib" / "vda3",
            "/var/lib/pydbt/vdb": tmp_path / "lib" / "vdb",
            "pki": tmp_path / "pki",
            "pki/alpha.identity": tmp_path / "pki" / "alpha.identity",
            "beta.identity": tmp_path / "beta.identity",
        }
        ran, services = [], dict[str, Controller]()
        for program, *words in lines_of("Run it for real"):
            assert os.access(ROOT / program, os.X_OK), program
            ran.append((program, *words[:1]))
            arguments = [*words[:1], *(ours.get(word, word) for word in words[1:])]
            match words[:1]:
                case []:
                    pass  # ./scripts/setup has made the environment that this runs in
                case ["pki"]:
                    assert command(*arguments).code == 0
                case [service]:
                    services[service] = begin(service, arguments, tmp_path, cable)
                    stack.callback(services[service].end)
        stack.callback(lambda: command("down", source.path))
        assert ran == [("./scripts/setup",), *((".venv/bin/controller", name) for name in COMMANDS)]
        until(lambda: command("wait", source.path).code == 0 or not services["run"].alive, "it is in sync")
        told = command("status", source.path)
        assert told.code == 0 and "normal" in told.output and "up-to-date" in told.output, told
        assert command("down", source.path).code == 0
        assert services["secondary"].terminate() == 0
        assert_identical(source.path, target.path, SIZE, "after the README's lines")
