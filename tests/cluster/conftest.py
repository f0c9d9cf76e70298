"""A node of a cluster on this machine: a replica on an image file, and Pacemaker's commands over files."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary.journal import SEGMENT_BYTES
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.device.target import Target
from pydbt.store.replica_state import save_record
from tests.cluster.node import Node
from tests.lab.pacemaker import PacemakerFiles

SIZE_BYTES = 4 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Beta, whose device is a consistent replica of alpha's volume; nothing runs yet."""
    image, state, folder = tmp_path / "disk.img", tmp_path / "state", tmp_path / "cluster"
    image.write_bytes(bytes(SIZE_BYTES))
    state.mkdir(mode=0o700)
    for role, lines in (
        ("run", f'source = "{image}"\nsecondary = "unix:{tmp_path}/alpha.sock"\n'),
        ("secondary", f'target = "{image}"\nlisten = "unix:{tmp_path}/beta.sock"\n'),
    ):
        (folder / role).mkdir(parents=True, mode=0o755)
        (folder / role / "data.toml").write_text(f'[{role}]\n{lines}state = "{state}"\ninsecure = true\n')
    target = Target(str(image))
    record = ReplicaRecord(
        replica=secrets.token_hex(16), target=target.identity, segment_bytes=SEGMENT_BYTES, volume=secrets.token_hex(16),
        size_bytes=SIZE_BYTES, block_bytes=4096, consistent=True, generations=Generations(secrets.randbits(63) | 1),
    )  # fmt: skip
    target.close()
    save_record(state, record)
    one = Node(PacemakerFiles(tmp_path / "pacemaker", "beta"), folder, state)
    try:
        yield one
    finally:
        subprocess.run(
            [one.pacemaker.commands / "controller", "down", "--state", state], capture_output=True, timeout=120
        )
