"""Both ends mean the same volume, or the primary is refused with a reason that programs can read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.refusals import refusal_words
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handshake import refusal
from pydbt.core.secondary.replica import ReplicaRecord

VOLUME, SIZE = "ab" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(5, (), (4,)))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip
NEW = ReplicaRecord(replica="cd" * 16, target="t", segment_bytes=1 << 20)


def test_in_a_split_brain_the_secondary_tells_what_only_it_has_to_a_primary_that_asks() -> None:
    side = Divergence("beta", "/dev/vdb", "t0", "t1", "t2", 80 << 20)
    record = replace(RECORD, generations=Generations(9, (), (4,)), divergence=side)
    told = refusal(replace(HELLO, features=(f.SIDES,)), record, SecondaryConfig(SIZE))
    assert told is not None and told.side == side
    older = refusal(HELLO, record, SecondaryConfig(SIZE))
    assert older is not None and older.side is None, "an older primary does not know the key"


@pytest.mark.parametrize(
    ("hello", "record", "target_bytes", "code"),
    [
        (HELLO, RECORD, SIZE, None),
        (HELLO, NEW, SIZE, None),
        (replace(HELLO, protocol=2), RECORD, SIZE, "protocol"),
        (replace(HELLO, volume="ef" * 16), RECORD, SIZE, "other-volume"),
        (HELLO, RECORD, SIZE - 512, "too-small"),
        (HELLO, NEW, SIZE - 512, "too-small"),
        (replace(HELLO, size_bytes=SIZE // 2), RECORD, SIZE, "resized"),
        (replace(HELLO, block_bytes=512), RECORD, SIZE, "block-size"),
        (HELLO, replace(RECORD, generations=Generations(9, (), (5,))), SIZE, "newer"),
        (HELLO, replace(RECORD, generations=Generations(9, (), (4,))), SIZE, "split-brain"),
        (HELLO, replace(RECORD, generations=Generations(9)), SIZE, "unrelated"),
    ],
)
def test_both_ends_mean_the_same_volume_or_the_primary_is_refused(
    hello: f.Hello, record: ReplicaRecord, target_bytes: int, code: str | None
) -> None:
    refused = refusal(hello, record, SecondaryConfig(target_bytes))
    assert (None if refused is None else refused.code) == code


@pytest.mark.parametrize("record", [RECORD, NEW])
@pytest.mark.parametrize(
    ("source", "target", "accepted", "code"),
    [
        (512, 512, False, None),
        (512, 4096, False, "sector-size"),
        (512, 4096, True, None),
        (512, 1024, False, "sector-size"),
        (4096, 4096, False, None),
        (4096, 512, False, None),
        (512, 0, False, None),
    ],
)
def test_a_device_with_larger_logical_blocks_is_no_target_unless_it_is_accepted(
    record: ReplicaRecord, source: int, target: int, accepted: bool, code: str | None
) -> None:
    config = SecondaryConfig(SIZE, sector_bytes=target, accept_sectors=accepted)
    refused = refusal(replace(HELLO, sector_bytes=source), record, config)
    assert (None if refused is None else refused.code) == code
    if refused is not None:
        assert f"{target} bytes" in refused.message and f"{source}" in refused.message
        assert "--accept-sectors" in refused.message and "--accept-sectors" in refusal_words(refused.code)
