"""Code as it is kept, and what is put into it when it is loaded."""

from __future__ import annotations

import struct

import pytest

from pydbt.kernel import layout
from pydbt.kernel.code import Code, MapShape, maps_in, wide_loads, with_maps, with_values
from pydbt.kernel.compiled import numbered_steps, numbered_values, source_text
from pydbt.kernel.record import RECORD_BYTES
from pydbt.kernel.spec import CaptureOptions, VolumeSpec

NUMBER, MAP = 0, 1
START = 0x7079646276000004
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
SHAPE = MapShape("pydbt_bits", 2, 4, 8, 1, 1 << 10)


def load(bits: int, source: int = NUMBER, register: int = 2) -> bytes:
    low, high = struct.unpack("<ii", struct.pack("<Q", bits))
    return struct.pack("<BBhiBBhi", 0x18, register | source << 4, 0, low, 0, 0, 0, high)


@pytest.mark.parametrize("bits", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, START, (1 << 64) - 1])
def test_a_load_of_64_bits_is_read_as_it_is_written(bits: int) -> None:
    assert list(wide_loads(EXIT + load(bits, register=9) + EXIT)) == [(1, NUMBER, bits)]
    assert list(wide_loads(with_values(load(START), {START: bits}))) == [(0, NUMBER, bits)]


def test_values_and_maps_take_the_places_that_are_theirs_alone() -> None:
    code = load(START, register=3) + load(4, MAP) + load(4) + load(START, MAP) + load(START)
    filled = with_maps(with_values(code, {START: 2048, 4: 7}), {4: 11, START: 12})
    assert list(wide_loads(filled)) == [(0, 0, 2048), (2, MAP, 11), (4, 0, 7), (6, MAP, 12), (8, 0, 2048)]
    assert filled[1] & 15 == 3, "the register stays"
    assert maps_in(filled) == {11, 12}


def test_a_map_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_maps(load(3, MAP), {0: 11})


def test_code_is_the_same_after_it_was_written_and_read() -> None:
    code = Code({"one": load(1) + EXIT, "two": EXIT}, (SHAPE,))
    assert Code.from_json(code.to_json()) == code


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"functions": {"a": "!"}, "maps": []}', '{"functions": {}, "maps": [[1]]}']
)
def test_a_text_that_is_no_code_is_an_error_that_is_expected(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Code.from_json(text)


def test_each_value_of_the_text_is_given_and_used_and_has_a_number_of_its_own() -> None:
    text = source_text()
    values = layout.volume_values(VolumeSpec(7, 3, 2048, 1 << 20), CaptureOptions())
    assert set(numbered_values(text).values()) == set(values)
    assert len(numbered_values(text)) == len(values) and not set(numbered_values(text)) & set(numbered_steps(text))
    assert all(text.count(f"VALUE_{name}") >= 2 for name in values), "one that is used nowhere"


def test_the_values_are_the_volumes_and_its_rings() -> None:
    volume = VolumeSpec(8, 17, 2048, 1000, block_bytes=8192, bio_based=True)
    options = CaptureOptions(header_ring_bytes=8192, data_ring_bytes=65536)
    values = layout.volume_values(volume, options)
    assert values["DISK_NUMBER"] == 8 << 20 | 17 and (values["DISK_MAJOR"], values["DISK_MINOR"]) == (8, 17)
    assert (values["VOLUME_START"], values["VOLUME_END"]) == (2048, 3048)
    assert 1 << values["BLOCK_SHIFT_SECTORS"] == 16 and values["BIO_BASED"] == 1
    assert values["HEADER_RECORDS"] * RECORD_BYTES == 8192
    sizes = layout.map_sizes(volume, options)
    assert sizes == {"bits": 2 * volume.map_words, "headers": values["HEADER_RECORDS"], "data": 65536, "sums": 1 << 18}
    assert values["HALF_OF_SUMS"] * 2 == sizes["sums"]
