"""The checksums are those of the standards, for data of every length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.transactions.crc import crc32_be, crc32c
from tests.lab.file_system_logs import slow_crc32_be, slow_crc32c

CHECK = b"123456789"


def test_the_check_values_of_the_catalogue() -> None:
    assert crc32c(0xFFFFFFFF, CHECK) ^ 0xFFFFFFFF == 0xE3069283
    assert crc32_be(0xFFFFFFFF, CHECK) == 0x0376E6E7


@given(st.binary(max_size=200), st.integers(0, 0xFFFFFFFF))
def test_short_data(data: bytes, value: int) -> None:
    assert crc32c(value, data) == slow_crc32c(value, data)
    assert crc32_be(value, data) == slow_crc32_be(value, data)


def test_whole_blocks() -> None:
    for size in (511, 512, 4095, 4096, 9000):
        data = bytes(index * 7 & 255 for index in range(size))
        assert crc32c(0x1234, data) == slow_crc32c(0x1234, data), size


def test_parts_give_the_sum_of_the_whole() -> None:
    data = bytes(range(256)) * 20
    assert crc32c(crc32c(5, data[:777]), data[777:]) == crc32c(5, data)
