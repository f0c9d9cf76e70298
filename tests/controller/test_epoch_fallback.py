"""Where the data of writes cannot be captured, the replica follows by images, or one sentence says why it cannot."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary import service as primary_service
from pydbt.core.errors import MachineError, UsageError
from pydbt.device.snapshot import Room


@dataclass
class Programs:
    payload_available: bool
    payload_reason: str = "the direct map was not found"


def options(**changes: object) -> PrimaryOptions:
    return PrimaryOptions(Path("/dev/x"), (("127.0.0.1", 7790),), Path("/s"), **changes)


def captures_payload(
    monkeypatch: pytest.MonkeyPatch, chosen: PrimaryOptions, programs: Programs, refusal: str = ""
) -> bool:
    def look(device: object, room: object) -> None:
        if refusal:
            raise UsageError(refusal)

    monkeypatch.setattr(primary_service, "look", look)
    return primary_service._captures_payload(chosen, None, programs, Room("tag"))


def test_each_write_is_followed_where_that_is_possible_and_wanted(monkeypatch):
    assert captures_payload(monkeypatch, options(), Programs(True))
    assert not captures_payload(monkeypatch, options(capture="addresses"), Programs(True))


def test_a_kernel_that_shows_no_data_gets_images_and_one_log_line_names_the_reason(monkeypatch, caplog):
    with caplog.at_level(logging.WARNING, "pydbt"):
        assert not captures_payload(monkeypatch, options(snapshot_interval_s=7), Programs(False))
    assert len(caplog.records) == 1
    assert "follows by images instead, one every 7 s" in caplog.text
    assert "the direct map was not found" in caplog.text


def test_a_volume_that_can_have_neither_is_refused_with_both_reasons(monkeypatch):
    with pytest.raises(MachineError, match=r"direct map was not found.*swap"):
        captures_payload(monkeypatch, options(), Programs(False), refusal="it is swap")
