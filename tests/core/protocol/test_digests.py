"""Digests of compared blocks: nobody who writes the blocks can make two that have one digest."""

from __future__ import annotations

import hashlib
import os
import random

import pytest
import xxhash

from pydbt.core.protocol.digests import DIGEST_BYTES, DIGEST_KEY_BYTES, UnitDigest
from tests.lab.collisions import colliding_blocks, sometimes_colliding_blocks


def test_blocks_that_were_made_to_have_one_unkeyed_digest_have_two_with_any_key() -> None:
    digest = UnitDigest(os.urandom(DIGEST_KEY_BYTES))
    for one, other in (colliding_blocks(bytes([place]) * 4096) for place in range(32)):
        assert one != other and xxhash.xxh3_128_digest(one) == xxhash.xxh3_128_digest(other)
        assert digest.of(one) != digest.of(other)


def test_a_secret_seed_would_be_no_key_because_a_pair_can_be_made_that_many_seeds_give_one_digest() -> None:
    """So xxh3_128 with a secret seed was not taken: of some thousand such pairs one or two survive any seed."""
    rng = random.Random(29)
    seeds = [rng.getrandbits(64) for _ in range(20000)]
    one, other = sometimes_colliding_blocks(rng.randbytes(4096))
    assert any(xxhash.xxh3_128_digest(one, seed) == xxhash.xxh3_128_digest(other, seed) for seed in seeds)
    keys = [rng.randbytes(DIGEST_KEY_BYTES) for _ in range(1000)]
    assert not any(UnitDigest(key).of(one) == UnitDigest(key).of(other) for key in keys)


def test_another_key_gives_another_digest_and_the_same_key_the_same() -> None:
    one, other = UnitDigest(bytes(32)), UnitDigest(bytes(31) + b"\1")
    assert one.of(b"a" * 4096) == UnitDigest(bytes(32)).of(b"a" * 4096) != other.of(b"a" * 4096)


def test_a_digest_is_made_by_the_function_that_the_format_names() -> None:
    key, unit = bytes(range(32)), b"unit" * 128
    assert UnitDigest(key).of(unit) == hashlib.sha256(key + bytes(32) + unit).digest()[:DIGEST_BYTES]


def test_the_last_unit_may_be_short() -> None:
    digest = UnitDigest(bytes(32))
    data = memoryview(b"a" * 4096 + b"b" * 512)
    assert digest.of_each(data, 4096) == digest.of(b"a" * 4096) + digest.of(b"b" * 512)
    assert digest.of_each(memoryview(b""), 4096) == b""


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_has_its_size(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        UnitDigest(bytes(size))
