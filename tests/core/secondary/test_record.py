"""The replica's state file: a record comes back as it was, earlier versions are read, anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary.replica import ReplicaRecord, own_part

VOLUME, SIZE = "ab" * 16, 1 << 20
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip


def test_a_record_comes_back_from_json_as_it_was() -> None:
    assert ReplicaRecord.from_values(json.loads(json.dumps(RECORD.to_values()))) == RECORD


def test_a_record_of_an_earlier_version_lacks_later_keys() -> None:
    values = RECORD.to_values()
    del values["promoted"], values["generations"], values["direct_bytes"]
    assert ReplicaRecord.from_values(values) == replace(RECORD, generations=Generations())


def test_only_a_record_of_blocks_that_are_kept_aside_has_a_version_that_earlier_programs_refuse() -> None:
    assert RECORD.to_values()["version"] == 2 and "kept_aside" not in RECORD.to_values()
    kept = replace(RECORD, kept_aside=True)
    assert kept.to_values()["version"] == 3
    assert ReplicaRecord.from_values(json.loads(json.dumps(kept.to_values()))) == kept


@pytest.mark.parametrize("values", [None, [], {}, RECORD.to_values() | {"more": 1}])
def test_values_that_are_no_record_s_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match="keys"):
        ReplicaRecord.from_values(values)


@pytest.mark.parametrize(
    "wrong",
    [{"consistent": 1}, {"fresh": None}, {"segment_bytes": 4095}, {"segment_bytes": 0}, {"version": 5}, {"kept_aside": 1},
     {"volume": None}, {"volume": "x"}, {"replica": ""}, {"sequence": -1}, {"epoch": 1 << 64}, {"promoted": "x" * 65}],
)  # fmt: skip
def test_an_illegal_record_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ReplicaRecord.from_values(RECORD.to_values() | wrong)


def test_a_record_that_goes_with_another_target_is_of_a_replica_that_no_primary_has_a_map_for() -> None:
    name = "ef" * 16
    served, copy = (replace(RECORD, must_reach=9).kept_for("u", name, copied=copied) for copied in (False, True))
    for moved in (served, copy):
        assert (moved.target, moved.replica, moved.formerly) == ("u", name, (RECORD.replica,))
    assert (served.consistent, served.must_reach) == (False, 0), "what is there is not known"
    assert (copy.consistent, copy.must_reach) == (True, 9), "the journal belongs to it"
    fresh = replace(RECORD, volume=None, consistent=False, fresh=True)
    assert not any(fresh.kept_for("u", name, copied=copied).fresh for copied in (False, True))


def test_the_writes_that_one_side_alone_has_are_open_until_they_are_given_up_or_promoted() -> None:
    own = Divergence("alpha", "/dev/x", differing_bytes=4096)
    assert own_part(RECORD) is None and own_part(replace(RECORD, divergence=replace(own, differing_bytes=0))) is None
    assert own_part(replace(RECORD, divergence=own)) == own
    assert own_part(replace(RECORD, divergence=own, promoted="2026-01-02T03:04:05Z")) is None
