"""Any file in a state directory under a name of this program's own: no command waits for it, or takes its memory."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest

from pydbt.cli.cluster import agent, node, process
from pydbt.cli.group import cli, execute
from pydbt.controller.control import SAVED_STATUS_NAME, SOCKET_NAME, write_saved_status
from pydbt.controller.former_secondary import FORMER_SOCKET_NAME
from pydbt.controller.history import HISTORY_FILE_NAME
from pydbt.controller.primary.former_address import FORMER_ADDRESS_NAME
from pydbt.controller.roles import JOURNAL_FOLDER
from pydbt.controller.secondary.engine import RESERVE_NAME
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.units import MIB, Geometry
from pydbt.posix.boot import boot_id
from pydbt.store.bad_blocks_file import BAD_BLOCKS_NAME
from pydbt.store.cluster_words import CLUSTER_WORDS_NAME
from pydbt.store.gate_file import GATE_FILE_NAME
from pydbt.store.gate_question_file import GATE_QUESTION_NAME
from pydbt.store.lock import LOCK_NAME
from pydbt.store.look_file import LOOK_FILE_NAME
from pydbt.store.map_file import save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.marks_file import MARKS_FILE_NAME
from pydbt.store.open_handover_file import OPEN_HANDOVER_NAME
from pydbt.store.reached import REACHED_FILE_NAME
from pydbt.store.replica_state import REPLICA_FILE_NAME, save_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.successor import SUCCESSOR_FILE_NAME
from pydbt.store.target_names import TARGET_NAMES_NAME
from pydbt.store.target_problem import TARGET_PROBLEM_NAME
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, save_state
from tests.core.secondary.test_brain import ADOPTED
from tests.lab.disks import image

NOBODY = 65534
NAMES = sorted({
    VOLUME_FILE_NAME, REPLICA_FILE_NAME, SAVED_STATUS_NAME, SOCKET_NAME, LOCK_NAME, HISTORY_FILE_NAME, FORMER_ADDRESS_NAME,
    FORMER_SOCKET_NAME,
    RESERVE_NAME, BAD_BLOCKS_NAME, CLUSTER_WORDS_NAME, GATE_FILE_NAME, GATE_QUESTION_NAME, LOOK_FILE_NAME, MARKS_FILE_NAME,
    OPEN_HANDOVER_NAME,
    REACHED_FILE_NAME, SUCCESSOR_FILE_NAME, TARGET_NAMES_NAME, TARGET_PROBLEM_NAME, JOURNAL_FOLDER, agent._ROLE_NAME,
    node._PROMOTION_NAME, process._LOG_NAME, *SecondaryRecord(1, "h:1").file_names, *SecondaryRecord(2, "h:1").file_names,
})  # fmt: skip


def _pipe(place: Path) -> None:
    os.mkfifo(place, 0o644)


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, chdir(place.parent):
        made.bind(place.name)


def _sparse(place: Path) -> None:
    place.touch()
    os.truncate(place, 8 << 40)


PLANTS: dict[str, Callable[[Path], None]] = {
    "pipe": _pipe,
    "socket": _socket,
    "sparse": _sparse,
    "link": lambda place: place.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


def plant(folder: Path, kind: str, *names: str) -> None:
    """Under each of these names, in the place of what is there."""
    for name in names:
        place = folder / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        PLANTS[kind](place)


def plant_as_nobody(folder: Path, kind: str) -> None:
    """Under every name, by a process of that user."""
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            plant(folder, kind, *NAMES)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def lines_of_commands(place: Path, target: Path) -> list[tuple[object, ...]]:
    """One line, or several, for every command that takes a state directory; none of them needs a volume that runs."""
    state = ("--state", place)
    return [
        *((verb, *state) for verb in (
            "status", "check", "pause", "resume", "verify", "switchover", "secondaries", "disarm", "down",
        )),
        ("status", "--json", *state),
        ("events", "--now", *state),
        ("wait", "--timeout", "1", *state),
        ("mark", "a name", *state),
        *((verb, target, *state) for verb in ("promote", "invalidate", "demote", "arm", "gate", "hold", "status")),
        ("promote", "--force", target, *state),
        ("secondary", target, "--replay-only", *state),
        ("run", target, "--secondary", "unix:/nonexistent", "--no-wait", *state),
    ]  # fmt: skip


def answered(told: Path, lines: Callable[[], Iterator[tuple[object, ...]]]) -> None:
    """Each line is carried out, in one process: none waits, takes memory without end, or is a fault of the program.

    ``lines`` may prepare a line before it yields it. ``told`` has what was told, with each line before what came of it.
    """
    if (child := os.fork()) == 0:
        try:
            _carry_out(told, lines)
            os._exit(0)
        finally:
            os._exit(99)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    words = told.read_text()
    assert ended != -signal.SIGALRM, f"it waits: {words[-600:]}"
    assert ended == 0 and "this is a bug" not in words and "memory" not in words, words[-3000:]


def _carry_out(told: Path, lines: Callable[[], Iterator[tuple[object, ...]]]) -> None:
    output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)  # what reads 8 TiB ends, and this machine does not
    for line in lines():
        print("$", *line, flush=True)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        execute([str(word) for word in line])
        signal.alarm(0)


def test_every_command_with_a_state_directory_is_asked_here(tmp_path: Path) -> None:
    tried = {line[0] for line in lines_of_commands(tmp_path, tmp_path)}
    for name, found in cli.commands.items():
        if any(parameter.name == "state_dir" for parameter in found.params):
            assert name in tried


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of another user, to which that user has a way."""
    with TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        yield Path(place)


@pytest.mark.parametrize("kind", PLANTS)
def test_another_user_s_directory_keeps_no_command_of_root_s(tmp_path: Path, theirs: Path, kind: str) -> None:
    plant_as_nobody(theirs, kind)
    before = {path.name: path.lstat() for path in theirs.iterdir()}
    lines = lines_of_commands(theirs, image(tmp_path / "t.img", MIB))
    answered(tmp_path / "told", lambda: iter(lines))
    assert {path.name: path.lstat() for path in theirs.iterdir()} == before, (
        "nothing was made, changed or removed there"
    )


def keep_a_volume(place: Path, target: Path) -> None:
    """As a run left it, with two secondaries."""
    records = tuple(
        SecondaryRecord(slot, f"h:{slot}", SyncPhase.REPLICATING, generations=ADOPTED.generations, unfinished=True)
        for slot in (1, 2)
    )
    state = VolumeState("ab" * 16, MIB, 4096, str(target), {}, records, boot_id=boot_id(), disk_sequence=7)
    save_state(place, state)
    for record in records:
        for name in (record.map_name, record.staged_name, record.free_name):
            save_map(place / name, MapHeader(UUID(state.volume), Geometry(MIB)), DirtyMap(MIB // 4096))
    secondaries = [{"secondary": record.address, "replica_state": "consistent"} for record in records]
    write_saved_status(place, {"role": "primary", "source": str(target), "mode": "normal", "secondaries": secondaries})


def keep_a_replica(place: Path, target: Path) -> None:
    save_record(place, replace(ADOPTED, target=str(target), size_bytes=MIB))
    write_saved_status(place, {"role": "secondary", "target": str(target), "mode": "streaming"})


@pytest.mark.parametrize("keep", [keep_a_volume, keep_a_replica])
def test_a_pipe_in_the_place_of_a_single_state_file_keeps_no_command_waiting(
    tmp_path: Path, keep: Callable[[Path, Path], None]
) -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        target, state = image(tmp_path / "t.img", MIB), ("--state", folder)
        lines: list[tuple[object, ...]] = [
            ("status", *state),
            ("check", *state),
            ("events", "--now", *state),
            ("down", *state),
        ]
        if keep is keep_a_volume:
            lines += [("demote", target, *state)]
        else:
            lines += [(verb, target, *state) for verb in ("promote", "invalidate")]
            lines += [("secondary", target, "--replay-only", *state)]

        def each() -> Iterator[tuple[object, ...]]:
            for name in NAMES:
                for line in lines:
                    shutil.rmtree(folder)
                    Path(folder).mkdir(0o700)
                    keep(Path(folder), target)
                    plant(Path(folder), "pipe", name)
                    print("with a pipe as", name, flush=True)
                    yield line

        answered(tmp_path / "told", each)
