"""All names of a replica's target, in a file beside its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.store.target_names import TARGET_NAMES_NAME, forget_target_names, load_target_names, save_target_names


def test_names_are_added_and_belong_to_the_records_own_name(tmp_path: Path) -> None:
    assert load_target_names(tmp_path, "slot") == {}
    save_target_names(tmp_path, "slot", {})
    assert not (tmp_path / TARGET_NAMES_NAME).exists(), "a target without a name leaves none"
    save_target_names(tmp_path, "slot", {"slot": "slot"})
    save_target_names(tmp_path, "slot", {"serial": "S"})
    assert load_target_names(tmp_path, "slot") == {"slot": "slot", "serial": "S"}
    assert load_target_names(tmp_path, "another") == {}
    save_target_names(tmp_path, "another", {"wwid": "W"})
    assert (load_target_names(tmp_path, "another"), load_target_names(tmp_path, "slot")) == ({"wwid": "W"}, {})


@pytest.mark.parametrize("content", [b"", b"torn", b"[]\n"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TARGET_NAMES_NAME).write_bytes(content)
    assert load_target_names(tmp_path, "slot") == {}
    save_target_names(tmp_path, "slot", {"slot": "slot"})
    assert load_target_names(tmp_path, "slot") == {"slot": "slot"}


def test_another_target_of_the_same_name_begins_without_the_others(tmp_path: Path) -> None:
    save_target_names(tmp_path, "slot", {"slot": "slot", "serial": "S"})
    for _ in range(2):
        forget_target_names(tmp_path)
    save_target_names(tmp_path, "slot", {"slot": "slot"})
    assert load_target_names(tmp_path, "slot") == {"slot": "slot"}
