"""A start reads the kernel's write-intent: a region to compare, or everything and a sentence with the reason"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pydbt.controller.primary import era_recovery
from pydbt.controller.primary.era_recovery import (
    UNTRACKED,
    EraRecovery,
    is_untracked,
    let_land,
    untracked_by,
    was_bounded,
)
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary.era_bound import Eras, Intent
from pydbt.core.units import KIB, MIB
from pydbt.device.commands import CommandFailed
from pydbt.store.intent_file import load_intent, save_intent
from pydbt.store.map_image import MapHeader
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState

REPLICA, METADATA = "ab" * 16, "cd" * 16
STATE = VolumeState("12" * 16, 1 * MIB, 4096, "/dev/x", {})
TAINTED = [{"reason": UNTRACKED, "since": ""}]
RECORD = SecondaryRecord(1, "h:1", SyncPhase.REPLICATING, replica=REPLICA, later_epochs=[3, 5], taints=TAINTED)


@dataclass
class Layer:
    """As pydbt.device.era.EraLayer."""

    era: int = 21
    problem: str = ""
    rows: tuple[tuple[int, int], ...] = ((2, 3), (10, 12))

    def now(self) -> Eras:
        return Eras(METADATA, 64 * KIB, self.era)

    def written_since(self, era: int) -> np.ndarray:
        assert era == 17
        if self.problem:
            raise CommandFailed(self.problem)
        return np.array(self.rows)


class Device:
    def in_flight_writes(self) -> int:
        return 0

    def counts_io(self) -> bool:
        return True


def keep(folder: Path, state: VolumeState = STATE, era: int = 17) -> None:
    dirty = DirtyMap(256)
    dirty.set_range(255, 1)
    header = MapHeader(state.uuid, state.geometry, epoch=5)
    save_intent(folder / "era.map", Intent(REPLICA, METADATA, 64 * KIB, era), header, dirty)


def asked(folder: Path, monkeypatch, layer: Layer | Exception | None, record: SecondaryRecord = RECORD):
    def find(_):
        if isinstance(layer, Exception):
            raise layer
        return layer

    monkeypatch.setattr(era_recovery, "era_layer_of", find)
    monkeypatch.setattr(era_recovery, "let_land", lambda *_: None)
    return EraRecovery(Device(), folder).of(STATE, record)


@pytest.mark.parametrize("link", ["no closing record was written after the last write", "the device was away"])
def test_a_missing_link_that_is_named_is_bounded_too_and_another_taint_is_not(tmp_path, monkeypatch, link) -> None:
    keep(tmp_path)
    named = replace(RECORD, taints=[{"reason": untracked_by(link), "since": ""}])
    assert asked(tmp_path, monkeypatch, Layer(), named) is not None
    assert is_untracked(UNTRACKED) and not is_untracked(link) and not is_untracked(f"{UNTRACKED}?")
    other = replace(RECORD, taints=[*named.taints, {"reason": link, "since": ""}])
    assert asked(tmp_path, monkeypatch, Layer(), other) is None


def test_regions_that_were_written_and_blocks_known_before_are_compared(tmp_path, monkeypatch, caplog) -> None:
    keep(tmp_path)
    with caplog.at_level(logging.WARNING, "pydbt"):
        since = asked(tmp_path, monkeypatch, Layer())
    assert since.era == 17 and since.bytes == 3 * 64 * KIB + 4096
    assert since.blocks.extents().blocks().tolist() == [*range(32, 48), *range(160, 192), 255]
    assert "since era 17, 200704 of 1048576 bytes" in caplog.text
    assert (tmp_path / "era.map").exists(), "a second power loss needs it again"
    assert was_bounded(tmp_path, RECORD)


def test_a_remembered_era_has_the_name_of_the_run_that_goes_on_with_it(tmp_path, monkeypatch) -> None:
    keep(tmp_path)
    monkeypatch.setattr(era_recovery, "era_layer_of", lambda _: Layer())
    EraRecovery(Device(), tmp_path).begin([replace(RECORD, later_epochs=[3, 5, 8])])
    assert load_intent(tmp_path / "era.map")[1].epoch == 8
    assert asked(tmp_path, monkeypatch, Layer(), replace(RECORD, later_epochs=[3, 5, 8])) is not None


@pytest.mark.parametrize(
    ("layer", "record", "reason"),
    [
        (Layer(era=16), RECORD, "set back"),
        (Layer(problem="era_invalidate is not installed here"), RECORD, "not installed"),
        (Layer(rows=((15, 17),)), RECORD, "outside the volume"),
        (CommandFailed("x lets discards through"), RECORD, "discards"),
        (Layer(), replace(RECORD, replica="ef" * 16), "another replica"),
        (Layer(), replace(RECORD, later_epochs=[3, 5, 7]), "did not know of eras"),
        (
            Layer(),
            replace(RECORD, taints=[{"reason": "an unknown operation wrote", "since": ""}]),
            "an unknown operation wrote",
        ),
    ],
)
def test_any_disagreement_about_the_era_compares_everything_and_one_sentence_names_the_reason(
    tmp_path, monkeypatch, caplog, layer, record, reason
) -> None:
    keep(tmp_path)
    with caplog.at_level(logging.WARNING, "pydbt"):
        assert asked(tmp_path, monkeypatch, layer, record) is None
    assert reason in caplog.text and len(caplog.records) == 1
    assert not (tmp_path / "era.map").exists(), "a later power loss would bound what was never compared"
    assert not was_bounded(tmp_path, record)


def test_a_damaged_or_foreign_or_missing_file_means_everything(tmp_path, monkeypatch, caplog) -> None:
    with caplog.at_level(logging.WARNING, "pydbt"):
        assert asked(tmp_path, monkeypatch, Layer()) is None
        assert "no era was remembered" in caplog.text
        keep(tmp_path, replace(STATE, volume="34" * 16))
        assert asked(tmp_path, monkeypatch, Layer()) is None
        assert "another volume" in caplog.text
        keep(tmp_path)
        (tmp_path / "era.map").write_bytes(b"PDBTERA\0" + bytes(100))
        assert asked(tmp_path, monkeypatch, Layer()) is None
        assert "era.map is not whole" in caplog.text


def test_without_write_intent_nothing_is_said_and_nothing_stays_remembered(tmp_path, monkeypatch, caplog) -> None:
    keep(tmp_path)
    with caplog.at_level(logging.WARNING, "pydbt"):
        assert asked(tmp_path, monkeypatch, None) is None
        EraRecovery(Device(), tmp_path).begin([RECORD])
    assert not caplog.records and not (tmp_path / "era.map").exists()


def test_a_run_without_an_era_to_rely_on_remembers_none_for_a_later_one(tmp_path, monkeypatch, caplog) -> None:
    keep(tmp_path)
    monkeypatch.setattr(era_recovery, "era_layer_of", lambda _: (_ for _ in ()).throw(CommandFailed("dmsetup failed")))
    with caplog.at_level(logging.WARNING, "pydbt"):
        EraRecovery(Device(), tmp_path).begin([RECORD])
    assert not (tmp_path / "era.map").exists() and "dmsetup failed" in caplog.text


@pytest.mark.parametrize(
    ("flying", "least", "most"),
    [
        (lambda now: False, 1.0, 1.1),
        (lambda now: now < 5.0, 6.0, 6.1),
        (lambda now: not (now < 0.1 or 3.0 < now < 3.1), 3.0, 3.1),
        (lambda now: True, 35.0, 35.1),
    ],
    ids=["idle", "busy at first", "hardly ever idle", "never idle"],
)
def test_writes_submitted_before_the_programs_were_attached_are_let_land(flying, least, most) -> None:
    now = [0.0]
    let_land(lambda: flying(now[0]), lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert least <= now[0] <= most


def test_a_kernel_that_keeps_no_counts_of_the_device_is_not_trusted_that_writes_have_landed(
    tmp_path, monkeypatch
) -> None:
    asked_in_flight = []
    monkeypatch.setattr(era_recovery, "era_layer_of", lambda _: Layer())
    monkeypatch.setattr(era_recovery, "let_land", lambda in_flight, *_: asked_in_flight.append(in_flight()))
    for counts, flying in ((True, 0), (True, 1), (False, 0)):
        monkeypatch.setattr(Device, "counts_io", lambda _, counts=counts: counts)
        monkeypatch.setattr(Device, "in_flight_writes", lambda _, flying=flying: flying)
        keep(tmp_path)
        EraRecovery(Device(), tmp_path).of(STATE, RECORD)
    assert asked_in_flight == [False, True, True]
