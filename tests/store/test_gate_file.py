"""The answer of the gate is for the status of this boot alone; a file that tells nothing is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.store.gate_file import GATE_FILE_NAME, GateRecord, load_gate, save_gate

RECORD = GateRecord("shut", "10.0.0.2:7790: it was promoted", "2026-01-02T16:18:58+00:00", "boot-1")
SAMPLE = Path(__file__).parents[1] / "samples/gate-v1.json"


def test_the_answer_of_the_gate_is_told_in_the_boot_in_which_it_was_asked_and_in_no_other(tmp_path: Path) -> None:
    save_gate(tmp_path, RECORD)
    assert load_gate(tmp_path, "boot-1") == RECORD
    assert load_gate(tmp_path, "boot-2") is None


def test_a_file_of_this_version_stays_readable(tmp_path: Path) -> None:
    save_gate(tmp_path, RECORD)
    assert (tmp_path / GATE_FILE_NAME).read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"outcome": "shut"}', b"[" * 100_000])
def test_a_file_that_tells_nothing_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / GATE_FILE_NAME).write_bytes(content)
    assert load_gate(tmp_path, "boot-1") is None
    assert load_gate(tmp_path / "missing", "boot-1") is None
