"""The primary's record of a volume comes back and belongs to its device, or it is refused and the difference is named."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pydbt.core.errors import StateError, UsageError
from pydbt.core.protocol.generations import Generations
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import (
    VolumeState,
    create_state,
    decode_state,
    encode_state,
    load_state,
    require_same_source,
    save_state,
)

SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass(frozen=True)
class Disk:
    path: str = "/dev/vdz"
    size_bytes: int = 1 << 30
    names: dict[str, str] = field(default_factory=lambda: {"serial": "A1", "partition": "2"})

    def identity(self) -> dict[str, str]:
        return self.names


@pytest.fixture
def state() -> VolumeState:
    return replace(create_state(Disk(), 4096), secondaries=(SecondaryRecord(1, "192.0.2.7:7790"),))


def test_a_new_volume_has_a_name_of_its_own(state: VolumeState) -> None:
    assert state.record(1).phase is SyncPhase.INITIAL and state.record(1).replica == ""
    assert state.volume != create_state(Disk(), 4096).volume and len(state.volume) == 32


def test_everything_written_down_comes_back(tmp_path: Path, state: VolumeState) -> None:
    assert load_state(tmp_path) is None and load_state(tmp_path / "missing") is None
    first = replace(
        state.record(1), phase=SyncPhase.REPLICATING, replica="ab" * 16, epoch=(1 << 64) - 1, sequence=12, progress=1 << 63,
        generations=Generations(5, (4,), (3,), shared=True),
    )  # fmt: skip
    full = replace(
        state,
        secondaries=(first, SecondaryRecord(3, "[::1]:7790", taints=[{"reason": "r", "since": "s"}])),
        generations=Generations(5, (), (4, 3)),
        clean={"boot_id": "x", "write_sectors": 5},
        more={"later": [1, 2]},
    )
    save_state(tmp_path, full)
    assert load_state(tmp_path) == full
    assert os.listdir(tmp_path) == ["volume.json"]


def test_a_state_of_a_version_that_knew_one_secondary_is_read_as_it_was_meant():
    state = decode_state((SAMPLES / "volume-v1.json").read_bytes())
    generations = Generations(5, (4,), (3, 2), shared=True)
    assert state.secondaries == (
        SecondaryRecord(
            slot=1, address="10.0.0.2:7790", phase=SyncPhase.REPLICATING, replica="fedcba9876543210" * 2, epoch=4711,
            sequence=815, later_epochs=[4713, 4715], compared_whole=True, generations=generations,
            taints=[{"reason": "a write of a kind whose blocks capture does not know", "since": "2026-01-02T03:04:05+00:00"}],
            verify={"ended": "2026-01-01T00:00:00+00:00", "repaired": True, "compared_bytes": 4096, "differing_bytes": 0,
                    "places": []},
        ),
    )  # fmt: skip
    assert (state.record(1).map_name, state.record(1).pin_name) == ("dirty.map", "peer"), (
        "its files are where they were"
    )
    assert (state.volume, state.size_bytes, state.block_bytes) == ("0123456789abcdef" * 2, 1 << 30, 4096)
    assert (state.boot_id, state.clean["write_sectors"], state.audit["offset_sectors"]) == ("b007", 64, -8)
    assert state.generations == generations and state.more == {"note": "kept"}
    assert decode_state(encode_state(state)) == state


def test_an_entry_of_a_version_that_did_not_know_of_progress_is_read() -> None:
    values = SecondaryRecord(1, "192.0.2.7:7790", replica="ab" * 16, progress=5).to_values()
    del values["progress"]
    assert SecondaryRecord.from_values(values) == SecondaryRecord(1, "192.0.2.7:7790", replica="ab" * 16)


def test_two_secondaries_have_files_of_their_own(state: VolumeState) -> None:
    second = SecondaryRecord(state.free_slot(), "192.0.2.8:7790")
    both = state.with_record(second)
    assert second.slot == 2 and len({record.map_name for record in both.secondaries}) == 2
    assert both.without_record(1).free_slot() == 1
    with pytest.raises(ValueError, match="same address"):
        state.with_record(SecondaryRecord(2, "192.0.2.7:7790"))


def test_every_truncated_and_every_changed_byte_is_noticed(tmp_path: Path, state: VolumeState) -> None:
    path, whole = tmp_path / "volume.json", encode_state(state)
    for end in range(len(whole) - 1):  # without its last line feed the file is still whole
        path.write_bytes(whole[:end])
        with pytest.raises(StateError, match=str(path)):
            load_state(tmp_path)
    for place in range(len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StateError, match=str(path)):
            load_state(tmp_path)


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"\xff" * 100, b"[]\nxxh3_128 00\n", b"null"])
def test_rubbish_is_refused(rubbish: bytes) -> None:
    with pytest.raises(ValueError):
        decode_state(rubbish)


def test_the_same_device_under_another_name_is_taken(state: VolumeState) -> None:
    moved = require_same_source(state, Disk(path="/dev/vdy"), "/state", 4096)
    assert moved.source_path == "/dev/vdy" and moved.volume == state.volume
    assert require_same_source(state, Disk(names={"serial": "A1", "wwid": "new"}), "/state") == state


def test_a_device_that_becomes_a_replica_may_be_larger_than_the_volume(state: VolumeState) -> None:
    assert require_same_source(state, Disk(size_bytes=2 << 30), "/state", as_target=True).volume == state.volume
    with pytest.raises(UsageError, match="name the SOURCE"):
        require_same_source(state, Disk(size_bytes=1 << 29), "/state", as_target=True)


def test_a_device_that_has_grown_is_not_cut_to_its_old_size_by_the_advice(state: VolumeState) -> None:
    """Its file system has grown with it; only a promoted target, which no run has used, may have been larger always."""
    with pytest.raises(
        UsageError, match=r"has grown, which is not supported yet: run 'controller down /dev/vd.'"
    ) as caught:
        require_same_source(state, Disk(size_bytes=2 << 30), "/state")
    assert "dmsetup" not in str(caught.value) and "name the SOURCE" in str(caught.value)
    promoted = replace(state, secondaries=())
    words = f"if its file system was not grown since the promotion.*0 {2 << 20} linear /dev/vd. 0"
    with pytest.raises(UsageError, match=words):
        require_same_source(promoted, Disk(size_bytes=2 << 30), "/state")


@pytest.mark.parametrize(
    ("disk", "block_bytes", "words"),
    [
        (Disk(size_bytes=2 << 30), None, f"{1 << 30} bytes.*{2 << 30}.*has grown.*name the SOURCE"),
        (Disk(size_bytes=1 << 29), None, f"{1 << 30} bytes.*{1 << 29}: name the SOURCE"),
        (Disk(names={"serial": "B2"}), None, "serial A1.*B2"),
        (Disk(names={"serial": "A1", "partition": "3"}), None, "partition 2.* 3"),
        (Disk(), 512, "blocks of 4096 bytes, not 512"),
    ],
)
def test_another_device_is_refused_and_the_difference_is_named(
    state: VolumeState, disk: Disk, block_bytes: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        require_same_source(state, disk, "/state", block_bytes)
    assert "/state" in str(caught.value) and "\n" not in str(caught.value)
