"""Text with a checksum is taken whole or not at all, and the bytes of state files stay what they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.checksum import checked, digest_of, with_checksum

GAPS = st.sampled_from([b"", b"\n"])


def test_the_bytes_are_those_of_the_files_that_exist() -> None:
    assert with_checksum(b'{"a": 1}\n') == b'{"a": 1}\nxxh3_128 65c049e594f67b995b6f57e211c9b1b8\n'
    assert with_checksum(b'{"a": 1}', b"\n") == b'{"a": 1}\nxxh3_128 8f1c29f50aa952dbd475f930065b4b4f\n'
    assert len(digest_of(b"")) == 32


@given(st.binary(), GAPS)
def test_a_text_with_a_checksum_is_read_as_it_was_written(text: bytes, gap: bytes) -> None:
    assert checked(with_checksum(text, gap), gap) == text


@given(st.binary(min_size=1), GAPS, st.data())
def test_a_text_that_is_cut_or_changed_is_refused(text: bytes, gap: bytes, data: st.DataObject) -> None:
    whole = with_checksum(text, gap)
    with pytest.raises(ValueError, match="checksum"):
        checked(whole[: data.draw(st.integers(0, len(whole) - 1))], gap)
    place, bits = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    damaged = whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :]
    with pytest.raises(ValueError, match="checksum"):
        checked(damaged, gap)
