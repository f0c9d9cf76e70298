"""State files carry their version truly, and a newer program's file is refused by its version, with the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from uuid import UUID

import pytest
import xxhash

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.secondary import replica
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.units import Geometry
from pydbt.store import map_file, volume_state
from pydbt.store.map_image import MapHeader
from pydbt.store.replica_state import REPLICA_FILE_NAME, load_record
from pydbt.store.secondary_record import MAP_FILE_NAME, SecondaryRecord
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, load_state

VOLUME, GEOMETRY = "ab" * 16, Geometry(1 << 20, 4096)
STATE = VolumeState(VOLUME, GEOMETRY.size_bytes, 4096, "/dev/sim", {}, (SecondaryRecord(1, "192.0.2.7:7790"),))
RECORD = ReplicaRecord(replica="cd" * 16, target="t", segment_bytes=1 << 20)

# The entries of each version that was ever released or built. An entry more, or fewer, needs a version more: an older program
# must be able to tell the file from a damaged one. (The last version may still change until it is released.)
VOLUME_ENTRIES = {
    3: {"volume", "size_bytes", "block_bytes", "source_path", "source", "secondaries", "removed", "boot_id", "disk_sequence",
        "clean", "audit", "generations", "last_written", "common_until", "alone_since", "more"},
}  # fmt: skip
SECONDARY_ENTRIES = {
    3: {"slot", "address", "phase", "replica", "epoch", "sequence", "later_epochs", "progress", "unfinished", "taints",
        "verify", "compared_whole", "generations", "last_common", "first_alone"},
}  # fmt: skip
RECORD_ENTRIES = {
    2: {"replica", "target", "segment_bytes", "volume", "size_bytes", "block_bytes", "consistent", "fresh", "epoch", "sequence",
        "checkpoint", "must_reach", "incarnation", "promoted", "generations", "direct_bytes", "divergence", "handed_to",
        "formerly", "version"},
}  # fmt: skip
RECORD_ENTRIES[3] = RECORD_ENTRIES[2] | {"kept_aside"}
RECORD_ENTRIES[4] = RECORD_ENTRIES[3] | {"journal_layout"}


def names_of(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_a_state_file_with_other_entries_has_another_version() -> None:
    assert VOLUME_ENTRIES[volume_state._VERSION] == names_of(VolumeState)
    assert SECONDARY_ENTRIES[volume_state._VERSION] == names_of(SecondaryRecord)
    assert RECORD_ENTRIES[replica.RECORD_VERSION] == names_of(ReplicaRecord)


def write_volume(folder: Path, **changes: object) -> None:
    text = volume_state.encode_state(STATE).rpartition(b"xxh3_128 ")[0]
    text = json.dumps(json.loads(text) | changes, indent=2).encode() + b"\n"
    (folder / VOLUME_FILE_NAME).write_bytes(text + b"xxh3_128 " + xxhash.xxh3_128_hexdigest(text).encode() + b"\n")


def write_record(folder: Path, **changes: object) -> None:
    body = json.dumps(RECORD.to_values() | changes).encode()
    digest = xxhash.xxh3_128_hexdigest(body).encode()
    (folder / REPLICA_FILE_NAME).write_bytes(body + b"\nxxh3_128 " + digest + b"\n")


def write_map(folder: Path, **changes: int) -> None:
    path = folder / MAP_FILE_NAME
    map_file.save_map(path, MapHeader(UUID(VOLUME), GEOMETRY), DirtyMap(GEOMETRY.block_count))
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + changes["version"].to_bytes(4, "little") + whole[12:])


Writer, Loader = Callable[..., None], Callable[[Path], object]
FILES = [
    (write_volume, load_state, VOLUME_FILE_NAME, volume_state._VERSION, "controller down"),
    (write_record, load_record, REPLICA_FILE_NAME, replica.RECORD_VERSION, "controller down"),
    (write_map, lambda folder: map_file.load_map(folder / MAP_FILE_NAME), MAP_FILE_NAME,
     map_file._VERSION, "move it away"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "load", "name", "version", "way_back"), FILES)
def test_a_newer_program_s_file_is_refused_by_its_version_with_the_way_back(
    tmp_path: Path, write: Writer, load: Loader, name: str, version: int, way_back: str
) -> None:
    write(tmp_path, version=version + 1)
    with pytest.raises(StateError) as caught:
        load(tmp_path)
    words = str(caught.value)
    assert f"{name} was written by a newer program: its version is {version + 1}" in words and way_back in words
    assert "not a whole" not in words


@pytest.mark.parametrize(("write", "load", "name", "version"), [file[:4] for file in FILES[:2]])
def test_a_newer_file_with_unknown_entries_is_refused_by_its_version_too(
    tmp_path: Path, write: Writer, load: Loader, name: str, version: int
) -> None:
    write(tmp_path, version=version + 1, room_for="something else")
    with pytest.raises(StateError, match=f"its version is {version + 1}"):
        load(tmp_path)


@pytest.mark.parametrize(("write", "load", "name", "version"), [file[:4] for file in FILES[:2]])
@pytest.mark.parametrize("wrong", [None, "2", 0, True, 1.5])
def test_a_version_that_is_no_number_is_no_newer_one(
    tmp_path: Path, write: Writer, load: Loader, name: str, version: int, wrong: object
) -> None:
    write(tmp_path, version=wrong)
    with pytest.raises(StateError, match="not a ") as caught:
        load(tmp_path)
    assert "newer" not in str(caught.value)


def test_the_states_of_earlier_versions_are_read(tmp_path: Path) -> None:
    for version in (2, 3):
        write_volume(tmp_path, version=version)
        assert load_state(tmp_path) == STATE
    for version in (1, 2):
        write_record(tmp_path, version=version)
        assert load_record(tmp_path) == RECORD
