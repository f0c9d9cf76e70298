"""The era that is recorded comes back with its map, or the file is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary.era_bound import MAX_ERA, Intent
from pydbt.store.intent_file import IntentKeeper, decode_intent, intent_parts, load_intent, save_intent
from tests.store.map_images import header_of, map_of

INTENT = Intent("ab" * 16, "cd" * 16, 65536, 17)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), era=st.integers(1, MAX_ERA), sectors=st.integers(1, 1 << 20))
def test_every_era_and_map_come_back_as_they_were(data: st.DataObject, era: int, sectors: int) -> None:
    blocks = sorted(data.draw(st.sets(st.integers(0, 99_999), max_size=30)))
    intent, header = Intent("0f" * 16, "f0" * 16, sectors * 512, era), header_of(100_000)
    found, found_header, dirty = decode_intent(b"".join(intent_parts(intent, header, map_of(100_000, blocks))))
    assert (found, found_header) == (intent, header) and dirty.extents().blocks().tolist() == blocks


def test_no_file_is_no_era_and_no_error(tmp_path: Path) -> None:
    assert load_intent(tmp_path / "era.map") is None


def test_a_file_with_any_byte_changed_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "era.map"
    save_intent(path, INTENT, header_of(1000), map_of(1000, [5]))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in [0, 9, 20, 40, 50, 54, 60, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StateError, match=r"era\.map is not whole"):
            load_intent(path)
    for length in (0, 10, 64, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError, match=r"era\.map is not whole"):
            load_intent(path)
    path.write_bytes(whole)
    assert load_intent(path)[0] == INTENT


def test_a_new_era_takes_the_place_of_the_last_one_with_its_map_at_once(tmp_path: Path) -> None:
    path = tmp_path / "era.map"
    save_intent(path, INTENT, header_of(1000), map_of(1000, [5]))
    save_intent(path, Intent("ab" * 16, "cd" * 16, 65536, 18), header_of(1000), DirtyMap(1000))
    intent, _, dirty = load_intent(path)
    assert intent.era == 18 and not dirty.any()
    assert [file.name for file in tmp_path.iterdir()] == ["era.map"]


def test_an_era_that_is_forgotten_while_it_is_saved_does_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "era.map"
    keeper = IntentKeeper(path)
    before = keeper.forgotten
    assert keeper.save(before, INTENT, header_of(100), map_of(100, [5])) and path.exists()
    keeper.forget()
    assert not path.exists()
    assert not keeper.save(before, INTENT, header_of(100), map_of(100, [5])) and not path.exists()
    assert keeper.save(keeper.forgotten, INTENT, header_of(100), map_of(100, [5])) and path.exists()
