"""The replica's state file is whole and its own, or refused by name. A state directory has one user."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import xxhash

from pydbt.core.errors import BusyError, StateError
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.store.lock import StateLock
from pydbt.store.replica_state import REPLICA_FILE_NAME, load_record, save_record

RECORD = ReplicaRecord(
    replica="12" * 16, target="file:7:512", segment_bytes=1 << 26, volume="ab" * 16, size_bytes=512, block_bytes=512,
    consistent=True, epoch=(1 << 64) - 1, sequence=(1 << 63) + 1, checkpoint=99, incarnation=3,
)  # fmt: skip


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    assert load_record(tmp_path) is None
    save_record(tmp_path, RECORD)
    assert load_record(tmp_path) == RECORD
    save_record(tmp_path, replace(RECORD, sequence=5, direct_bytes=6))
    assert (load_record(tmp_path).sequence, load_record(tmp_path).direct_bytes) == (5, 6)
    assert [path.name for path in tmp_path.iterdir()] == [REPLICA_FILE_NAME]


def test_a_record_of_a_version_that_did_not_count_direct_writes_is_read(tmp_path):
    values = replace(RECORD, direct_bytes=7).to_values()
    del values["direct_bytes"]
    body = json.dumps(values).encode()
    (tmp_path / REPLICA_FILE_NAME).write_bytes(
        body + b"\nxxh3_128 " + xxhash.xxh3_128(body).hexdigest().encode() + b"\n"
    )
    assert load_record(tmp_path) == RECORD and RECORD.direct_bytes == 0


def test_any_damage_is_refused_and_names_the_file(tmp_path):
    save_record(tmp_path, RECORD)
    path = tmp_path / REPLICA_FILE_NAME
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index])
        with pytest.raises(StateError, match=REPLICA_FILE_NAME):
            load_record(tmp_path)
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(StateError, match=REPLICA_FILE_NAME):
            load_record(tmp_path)


@pytest.mark.parametrize("change", [{"version": 5}, {"more": 1}, {"consistent": 1}, {"epoch": -1}, {"volume": "x"}])
def test_another_version_or_program_s_file_is_refused(tmp_path, change):
    body = json.dumps({**RECORD.to_values(), **change}).encode()
    (tmp_path / REPLICA_FILE_NAME).write_bytes(
        body + b"\nxxh3_128 " + xxhash.xxh3_128(body).hexdigest().encode() + b"\n"
    )
    with pytest.raises(StateError, match=REPLICA_FILE_NAME):
        load_record(tmp_path)


def test_a_state_directory_has_one_user(tmp_path):
    lock = StateLock(tmp_path)
    with pytest.raises(BusyError, match="in use"):
        StateLock(tmp_path)
    lock.close()
    StateLock(tmp_path).close()
