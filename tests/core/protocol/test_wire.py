"""Frames survive the wire, whatever way it cuts them; anything else is one WireError and no memory."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import EXTENT_DTYPE, SectorTable
from pydbt.core.errors import WireError
from pydbt.core.protocol import frames as f
from pydbt.core.protocol import wire
from pydbt.core.protocol.completed import COMPLETED_DTYPE, Completed
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.recent import Recall, Recent
from pydbt.core.protocol.role import Role
from pydbt.core.protocol.standing import Standing
from pydbt.core.protocol.stream_times import StreamTimes
from pydbt.core.protocol.transaction import Transaction
from tests.lab.decoder import Decoder

SAMPLES = Path(__file__).parents[2] / "samples" / "frames"
U64 = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=50)
VOLUME = "00112233445566778899aabbccddeeff"


def pattern(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


EXAMPLES: dict[str, f.Frame] = {
    "hello": f.Hello(VOLUME, 1 << 30, 4096, 0xFEDCBA9876543210, 512, "pydbt 0.1", ("zstd",)),
    "begin": f.Begin(7, 0xFEDCBA9876543210, 123456789, f.BeginFlag.INITIAL | f.BeginFlag.WHOLE_DEVICE),
    "blocks": f.Blocks(9, SectorTable.of([8, 4096, 64], [2, 100000, 1], [1, 2, 1]), (pattern(1024), pattern(512))),
    "digests": f.Digests(10, Runs(np.array([3, 100]), np.array([2, 1])), pattern(256)[:48]),
    "stream": f.Stream(100, 110, SectorTable.of([8, 0, 8], [1, 9, 1], [1, 3, 1], [0, 4, 10]), (pattern(1024),)),
    "stream_without_data": f.Stream(1, 65536, SectorTable.of([], []), ()),
    "stream_times": f.Stream(
        100,
        102,
        SectorTable.of([8, 0, 8], [1, 9, 1], [1, 3, 1], [0, 1, 2]),
        (pattern(1024),),
        StreamTimes(-5_000_000_007, np.array([1 << 40, 0, (1 << 40) - 9], np.uint64)),
    ),
    "completed": Completed(
        120,
        1_700_000_000_000_000_000,
        np.array(
            [
                (48211, 100, 100, 1 << 40, 1_767_000_000_000_000_000, 3, 1, 0, 0),
                (5 << 32 | 9, 110, 117, 2, 0, 0, 2, 0, 0),
            ],
            COMPLETED_DTYPE,
        ),
    ),
    "mark": NamedMark(112, 1_767_000_000_000_000_000, "before migration 14 ü", 1 << 40, -3, True, True, 4096),
    "commit": f.Commit(7, 110),
    "ping": f.Ping(77, 110),
    "ping_date": f.Ping(77, 110, 76, 1234),
    "bye": f.Bye("controller down"),
    "generation": f.Generation(Generations(9, (8, 7), (6,), shared=True)),
    "standing": Standing("alpha", "/dev/vda3", "2026-01-02T03:04:05.678Z", 42, True, 1 << 20),
    "standing_unknown": Standing("alpha", "/dev/vda3", "2026-01-02T03:04:05.678Z", 42, False, None),
    "handover": f.Handover(True, "10.0.0.1:7790", 0xFEDCBA9876543210, 42),
    "transaction": Transaction("ext4", "48211.3", "2026-01-02T03:04:05.678Z", 812, 42),
    "takeover": f.Takeover(False, "the target is an image file"),
    "welcome": f.Welcome(VOLUME, "consistent", 1, 42, True, 1 << 31, False, VOLUME[::-1], "pydbt 0.1"),
    "welcome_nothing": f.Welcome(None, "inconsistent", 0, 0, False, 1 << 31, True),
    "refuse": f.Refuse("too-small", "the target is too small: use a larger one"),
    "refuse_side": f.Refuse(
        "split-brain", "both were written", Divergence("beta", "/dev/vdb", "t0", "t1", "t2", 80 << 20)
    ),
    "welcome_progress": f.Welcome(
        VOLUME, "consistent", 1, 42, True, 1 << 31, False, VOLUME[::-1], "pydbt 0.1", progress=0
    ),
    "welcome_key": f.Welcome(
        VOLUME,
        "consistent",
        1,
        42,
        True,
        1 << 31,
        False,
        VOLUME[::-1],
        "pydbt 0.1",
        progress=5,
        digest_key="0f" * 32,
        formerly=(VOLUME,),
    ),
    "welcome_marks": f.Welcome(
        VOLUME,
        "consistent",
        1,
        42,
        False,
        1 << 31,
        False,
        VOLUME[::-1],
        "pydbt 0.1",
        progress=5,
        marks=(7, 1_767_000_000_000_000_000),
    ),
    "ack": f.Ack(110, 10, 7, 90, 1 << 40, 3),
    "ack_progress": f.Ack(110, 10, 7, 90, 1 << 40, 3, (1 << 63) + 1),
    "want": f.Want(10, Runs(np.array([4]), np.array([1]))),
    "pong": f.Pong(77),
    "unwritable": f.Unwritable(Runs(np.array([4, 1 << 40]), np.array([1, 3])), 4096),
    "recall": Recall(1 << 30),
    "recent": Recent(Runs(np.array([1 << 40, 4]), np.array([3, 1])), 4096),
    "role": Role(
        "promoted",
        "2026-01-02T03:04:05+00:00",
        VOLUME,
        (VOLUME[::-1],),
        Generations(9, (8, 7), (6,), shared=True),
        0xFEDCBA9876543210,
        42,
    ),
    "role_replica": Role("replica", "", VOLUME, (), Generations(9), 1, 42),
}


def joined(frame: f.Frame, number: int = 0, **options: int) -> bytes:
    return b"".join(map(bytes, wire.encode(frame, number, **options)))


def decoded(data: bytes) -> list[f.Frame]:
    decoder = Decoder()
    decoder.feed(data)
    return list(decoder)


def checked(header: bytes) -> bytes:
    """The header with the checksum that belongs to it."""
    return header[:12] + zlib.crc32(header[:12]).to_bytes(4, "little") + header[16:]


@st.composite
def tables(draw: st.DrawFn, ascending: bool = False) -> tuple[SectorTable, tuple[bytes, ...]]:
    rows = draw(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(1, 9), st.integers(1, 3)), max_size=9))
    deltas = sorted(draw(st.lists(st.integers(0, 65535), min_size=len(rows), max_size=len(rows)))) if ascending else 0
    table = SectorTable.of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], deltas)
    pieces = tuple(draw(st.binary(min_size=1, max_size=1)) * (512 * r[1]) for r in rows if r[2] == 1)
    return table, pieces


FRAMES = st.one_of(
    st.sampled_from(list(EXAMPLES.values())),
    tables().map(lambda t: f.Blocks(3, *t)),
    tables(ascending=True).map(lambda t: f.Stream(1 << 40, (1 << 40) + 65535, *t)),
    st.builds(f.Ack, U64, U64, U64, U64, U64, st.integers(0, 3), st.just(0) | U64),
    st.builds(
        f.Welcome,
        st.just(VOLUME),
        st.text(max_size=32),
        U64,
        U64,
        st.booleans(),
        U64,
        st.booleans(),
        software=TEXT,
        progress=st.none() | U64,
        formerly=st.none() | st.lists(st.just(VOLUME), max_size=3).map(tuple),
        digest_key=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
    st.builds(f.Commit, U64, U64),
    st.builds(f.Ping, U64, U64),
    st.builds(f.Ping, U64, U64, U64, U64),
    st.builds(f.Bye, TEXT),
    st.builds(f.Refuse, TEXT, TEXT),
)


@given(st.lists(FRAMES, max_size=4), st.data())
def test_frames_arrive_as_they_were_sent_wherever_the_stream_is_cut(sent, data):
    whole = b"".join(joined(frame, number) for number, frame in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    decoder, received = Decoder(), []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        decoder.feed(whole[begin:end])
        received += list(decoder)
    assert received == sent


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_of_frame_arrives_byte_by_byte_and_with_a_tail(name):
    data = joined(EXAMPLES[name])
    decoder = Decoder()
    for index in range(len(data)):
        assert decoder.next() is None
        decoder.feed(data[index : index + 1])
    assert decoder.next() == EXAMPLES[name]
    assert decoded(data + joined(f.Pong(1), 1)) == [EXAMPLES[name], f.Pong(1)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_frames_of_this_version_stay_readable(name):
    """Golden files: a change that breaks them needs a new protocol version."""
    assert decoded((SAMPLES / f"{name}.frame").read_bytes()) == [EXAMPLES[name]]
    assert joined(EXAMPLES[name]) == (SAMPLES / f"{name}.frame").read_bytes()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_truncated_frame_is_never_taken_for_a_whole_one(name):
    data = joined(EXAMPLES[name])
    for length in {*range(0, min(len(data), 200)), len(data) - 1}:
        assert decoded(data[:length]) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_any_flipped_bit_is_found(name):
    data = joined(EXAMPLES[name])
    for index in [*range(min(len(data), 160)), *range(160, len(data), 97)]:
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            decoder = Decoder()
            decoder.feed(damaged + bytes(64))
            with pytest.raises(WireError):
                assert decoder.next() is None, "a damaged frame was taken"
                raise WireError("its length grew, which costs a frame's room at most")


@settings(max_examples=500)
@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_one_error_or_an_unfinished_frame(garbage, with_magic):
    decoder = Decoder()
    decoder.feed(b"PDBT\x01" + garbage if with_magic else garbage)
    try:
        assert decoder.next() is None
    except WireError as error:
        with pytest.raises(WireError):
            decoder.next()
        decoder.feed(joined(f.Pong(1)))
        with pytest.raises(WireError):
            decoder.next()
        assert "\n" not in str(error)


@settings(max_examples=1000)
@given(st.sampled_from(sorted(f.FrameKind)), st.binary(max_size=400), st.integers(0, 1))
def test_a_well_wrapped_body_of_garbage_is_a_frame_or_one_error(kind, body, flags):
    data = wrap(kind, body, flags)
    decoder = Decoder()
    decoder.feed(data)
    with contextlib.suppress(WireError):
        decoder.next()


def wrap(kind: int, body: bytes, flags: int = 0, number: int = 0) -> bytes:
    """A frame whose checksums are right, whatever is in it."""
    import xxhash

    start = b"PDBT" + bytes([1, kind]) + flags.to_bytes(2, "little") + len(body).to_bytes(4, "little")
    start += zlib.crc32(start).to_bytes(4, "little") + number.to_bytes(8, "little") + bytes(8)
    return start + xxhash.xxh3_128(start + body).digest() + body


PONG = joined(f.Pong(1))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (PONG[:47], "has 48 bytes, not 47"),
        (b"HTTP" + PONG[4:48], "does not speak this protocol: its frame begins with b'HTTP'"),
        (checked(b"PDBT\x02" + PONG[5:48]), "the peer speaks version 2 of the protocol, this program version 1"),
        (checked(PONG[:5] + b"\xfe" + PONG[6:48]), "a frame of unknown kind 254"),
        (checked(PONG[:6] + b"\x01\0" + PONG[8:48]), "unknown flags 0x1 on a PONG frame"),
        (checked(PONG[:6] + b"\x02\0" + PONG[8:48]), "unknown flags 0x2 on a PONG frame"),
        (PONG[:24] + b"\x01" + PONG[25:48], "a reserved field of a frame header is not zero"),
    ],
)
def test_each_header_that_is_refused_is_refused_in_its_words(header: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=re.escape(reason)):
        wire.decode_frame_header(header)


def test_a_body_of_another_length_than_its_header_announces_is_refused() -> None:
    header, body = _split(PONG)
    for wrong in (body[:-1], body + b"\0"):
        with pytest.raises(WireError, match=f"a body of {len(wrong)} bytes after a header that announces {len(body)}"):
            wire.decode_body(header, wrong)


TABLE = SectorTable.of([0], [2])
LARGE = SectorTable.of([0], [2 * f.MAX_PAYLOAD_BYTES // 512])
ENCODER = zstandard.ZstdCompressor()
ANNOUNCES_ITS_SIZE = ENCODER.compress(bytes(1024))


@pytest.mark.parametrize(
    ("table", "size", "payload", "flags", "reason"),
    [
        (TABLE, 512, bytes(1024), 0, "a payload size of 512 where the extents announce 1024"),
        (TABLE, 1024, bytes(1023), 0, "1023 bytes of payload where the extents announce 1024"),
        (LARGE, LARGE.payload_bytes, b"", 0, f"in a frame that takes {f.MAX_PAYLOAD_BYTES}"),
        (TABLE, 1024, ENCODER.compress(bytes(1023)), wire.FLAG_ZSTD, "does not announce the 1024 bytes"),
        (TABLE, 1024, ANNOUNCES_ITS_SIZE[:-2], wire.FLAG_ZSTD, "illegal BLOCKS"),
        (TABLE, 1024, ANNOUNCES_ITS_SIZE + b"more", wire.FLAG_ZSTD, "illegal BLOCKS"),
    ],
)
def test_a_payload_that_is_not_that_of_its_extents_is_refused(
    table: SectorTable, size: int, payload: bytes, flags: int, reason: str
) -> None:
    body = wire._BLOCKS.pack(1, 1, size) + table.to_bytes() + payload
    with pytest.raises(WireError, match=reason):
        wire.decode_body(*_split(wrap(f.FrameKind.BLOCKS, body, flags)))


@pytest.mark.parametrize("name", ["want", "begin", "ack", "unwritable", "recent"])
def test_bytes_without_a_meaning_are_zero_or_the_frame_is_refused(name: str) -> None:
    """So that a later version may give it one, and this one does not take it for something else."""
    body = bytearray(joined(EXAMPLES[name])[wire.FRAME_HEADER_BYTES :])
    kind = f.FrameKind[type(EXAMPLES[name]).__name__.upper()]
    if name in ("unwritable", "recent"):
        body += b"\0\1"
    else:
        body[{"want": 12, "begin": 28, "ack": 47}[name]] = 1
    with pytest.raises(WireError, match=f"illegal {kind.name} frame"):
        wire.decode_body(*_split(wrap(kind, bytes(body))))


def test_an_oversized_frame_is_refused_before_any_memory_is_taken():
    start = b"PDBT" + bytes([1, f.FrameKind.BLOCKS, 0, 0]) + (0xFFFF_FFF0).to_bytes(4, "little")
    data = start + zlib.crc32(start).to_bytes(4, "little") + bytes(32)
    tracemalloc.start()
    decoder = Decoder()
    decoder.feed(data)
    with pytest.raises(WireError, match="outside of"):
        decoder.next()
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_compressed_payload_that_would_swell_is_refused_before_it_does():
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    table = SectorTable.of([0], [2])
    body = wire._BLOCKS.pack(1, 1, 1024) + table.to_bytes() + bomb
    tracemalloc.start()
    with pytest.raises(WireError, match="compressed payload"):
        wire.decode_body(*_split(wrap(f.FrameKind.BLOCKS, body, wire.FLAG_ZSTD)))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def _split(data: bytes) -> tuple[wire.FrameHeader, bytes]:
    return wire.decode_frame_header(data[: wire.FRAME_HEADER_BYTES]), data[wire.FRAME_HEADER_BYTES :]


def test_an_extent_count_beyond_the_body_is_refused():
    body = wire._BLOCKS.pack(1, 0xFFFF_FFFF, 0)
    with pytest.raises(WireError, match="do not fit"):
        wire.decode_body(*_split(wrap(f.FrameKind.BLOCKS, body)))


def test_a_lost_or_repeated_frame_is_noticed_by_its_number():
    first, third = joined(f.Ping(1), 0), joined(f.Ping(3), 2)
    for data in (first + third, first + first):
        decoder = Decoder()
        decoder.feed(data)
        assert decoder.next() == f.Ping(1)
        with pytest.raises(WireError, match="frame 1 was due"):
            decoder.next()


def test_a_frame_without_progress_is_one_that_older_programs_understand():
    assert wire.decode_frame_header(joined(f.Ack(1))[: wire.FRAME_HEADER_BYTES]).body_length == 48
    assert b"progress" not in joined(f.Welcome(VOLUME, "consistent", 1, 42, True, 1 << 31, False))
    assert decoded(joined(f.Ack(1))) == [f.Ack(1, progress=0)]


def test_a_welcome_without_a_key_is_one_that_older_programs_understand():
    words = joined(f.Welcome(VOLUME, "consistent", 1, 42, True, 1 << 31, False))
    assert b"digest_key" not in words and b"formerly" not in words


@pytest.mark.parametrize("key", ["null", '""', '"0f"', "5", '"' + "0F" * 32 + '"', '"' + "0f" * 33 + '"'])
def test_a_key_that_is_none_is_refused_and_not_repeated(key):
    body = joined(EXAMPLES["welcome_key"])[wire.FRAME_HEADER_BYTES :].replace(f'"{"0f" * 32}"'.encode(), key.encode())
    with pytest.raises(WireError, match="illegal WELCOME") as raised:
        wire.decode_body(*_split(wrap(f.FrameKind.WELCOME, body)))
    assert "0F0F" not in str(raised.value)


@pytest.mark.parametrize("length", [47, 49, 52, 55, 57])
def test_an_ack_has_the_one_length_or_the_other(length):
    with pytest.raises(WireError):
        wire.decode_body(*_split(wrap(f.FrameKind.ACK, bytes(length))))


@pytest.mark.parametrize("progress", [b"null", b'"5"', b"true", b"-1", b"5.0", b"18446744073709551616"])
def test_a_progress_that_is_no_number_of_64_bits_is_refused(progress):
    body = joined(EXAMPLES["welcome_progress"])[wire.FRAME_HEADER_BYTES :].replace(
        b'"progress":0', b'"progress":' + progress
    )
    with pytest.raises(WireError, match="illegal WELCOME"):
        wire.decode_body(*_split(wrap(f.FrameKind.WELCOME, body)))


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"null", b'{"reason":1}', b'{"reason":"a","reason":"b"}', b'{"reason":"a","more":1}', b"\xff\xfe",
     b"[" * 60000, b'{"reason":' + b"9" * 50000 + b"}", b'{"reason":"' + b"x" * 5000 + b'"}'],
)  # fmt: skip
def test_json_that_is_not_exactly_the_frame_s_is_refused(body):
    with pytest.raises(WireError, match="illegal BYE"):
        wire.decode_body(*_split(wrap(f.FrameKind.BYE, body)))


@given(tables(), st.integers(1, 5))
def test_compression_changes_nothing_but_the_size(table, level):
    frame = f.Blocks(1, *table)
    assert decoded(joined(frame, 0, compress_level=level)) == [frame]


def test_compression_that_saves_nothing_is_left_out():
    noise = np.random.default_rng(1).bytes(8192)
    frame = f.Blocks(1, SectorTable.of([0], [16]), (noise,))
    assert len(joined(frame, 0, compress_level=3)) == len(joined(frame, 0))
    assert len(joined(f.Blocks(1, SectorTable.of([0], [16]), (bytes(8192),)), 0, compress_level=3)) < 200


def test_scattered_4_kib_blocks_cost_less_than_0_6_percent_more_than_themselves():
    count = 2000
    table = SectorTable.of(np.arange(count) * 80, np.full(count, 8))
    data = bytes(count * 4096)
    assert sum(map(len, wire.encode(f.Blocks(1, table, (data,)), 0))) < len(data) * 1.006


def test_payload_is_handed_to_the_socket_without_a_copy():
    payload = bytearray(4096)
    buffers = wire.encode(f.Blocks(1, SectorTable.of([0], [8]), (payload,)), 0)
    assert any(buffer is payload for buffer in buffers)
    header = wire.decode_frame_header(b"".join(map(bytes, buffers))[: wire.FRAME_HEADER_BYTES])
    body = bytearray(b"".join(map(bytes, buffers))[wire.FRAME_HEADER_BYTES :])
    frame = wire.decode_body(header, body)
    body[-1] = 1
    assert frame.payload[0][-1] == 1, "decoded payload is a view of the body"


def test_the_extent_row_is_16_bytes():
    assert EXTENT_DTYPE.itemsize == 16


@pytest.mark.parametrize(
    "make",
    [
        lambda: f.Blocks(1, SectorTable.of([0], [8]), (bytes(4095),)),
        lambda: f.Blocks(1, SectorTable.of([0], [0]), ()),
        lambda: f.Blocks(1, SectorTable.of([0], [8], 4), ()),
        lambda: f.Blocks(1, SectorTable.of([0], [8], 2, 1), ()),
        lambda: f.Blocks(1, SectorTable.of([1 << 60], [8], 2), ()),
        lambda: f.Stream(0, 1, SectorTable.of([], [])),
        lambda: f.Stream(5, 4, SectorTable.of([], [])),
        lambda: f.Stream(1, 1 + 65536, SectorTable.of([], [])),
        lambda: f.Stream(1, 2, SectorTable.of([0, 0], [1, 1], 2, [1, 0])),
        lambda: f.Stream(1, 2, SectorTable.of([0], [1], 2, [2])),
        lambda: f.Digests(1, Runs(np.array([0]), np.array([2])), bytes(16)),
        lambda: f.Hello("xyz", 512, 4096, 1),
        lambda: f.Hello(VOLUME, 513, 4096, 1),
        lambda: f.Hello(VOLUME, 512, 5000, 1),
        lambda: f.Ack(-1),
        lambda: f.Ack(1 << 64),
        lambda: f.Ack(1, progress=-1),
        lambda: f.Welcome(VOLUME, "consistent", 1, 42, True, 512, False, progress=1 << 64),
        lambda: f.Begin(0, 1, 1),
    ],
)
def test_an_illegal_frame_cannot_be_made(make):
    with pytest.raises(ValueError):
        make()
