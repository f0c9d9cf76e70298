"""A secondary takes its primary's place only where it can be a primary, and only at the primary's very end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.takeover import why_not_take_over

VOLUME, SIZE = "ab" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(4, shared=True))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip
ASK, FINAL = f.Handover(False, "10.0.0.1:7790"), f.Handover(True, "10.0.0.1:7790", 7, 10)


def asked(handover: f.Handover, record: ReplicaRecord = RECORD, **given: object) -> str:
    staged = bool(given.pop("staged", False))
    config = SecondaryConfig(**{"target_bytes": SIZE, "unable": "", "sector_bytes": 512} | given)  # type: ignore[arg-type]
    return why_not_take_over(handover, HELLO, record, Position(7, 10), staged=staged, config=config)


def test_a_secondary_that_stands_where_the_primary_ended_takes_over() -> None:
    assert asked(ASK) == "" and asked(FINAL) == ""
    assert asked(ASK, sector_bytes=4096, accept_sectors=True) == "", "smaller blocks on the replica are right"


@pytest.mark.parametrize("handover", [ASK, FINAL])
@pytest.mark.parametrize(
    ("record", "changes", "words"),
    [
        (RECORD, {"unable": "no root"}, "no root"),
        (RECORD, {"target_bytes": SIZE + 512}, f"has {SIZE + 512} bytes"),
        (RECORD, {"staged": True}, "not in sync"),
        (RECORD, {"sector_bytes": 256}, "logical blocks of 256 bytes"),
        (RECORD, {"sector_bytes": 256, "accept_sectors": True}, "of 512"),
        (replace(RECORD, consistent=False), {}, "not in sync"),
    ],
)
def test_a_secondary_that_cannot_be_the_primary_names_the_reason(
    handover: f.Handover, record: ReplicaRecord, changes: dict[str, object], words: str
) -> None:
    assert words in asked(handover, record, **changes)


@pytest.mark.parametrize(
    ("handover", "record"),
    [
        (replace(FINAL, sequence=11), RECORD),
        (replace(FINAL, epoch=8), RECORD),
        (FINAL, replace(RECORD, generations=Generations(3))),
    ],
)
def test_a_secondary_that_stands_elsewhere_does_not_take_over(handover: f.Handover, record: ReplicaRecord) -> None:
    assert "does not stand where the primary ended" in asked(handover, record)
    assert asked(replace(ASK, epoch=handover.epoch), record) == "", "the question is only whether it could"


def brain_of(unable: str = "") -> Secondary:
    brain = Secondary(
        SecondaryConfig(SIZE, unable=unable, sector_bytes=512), RECORD, Recovery(RECORD), StagedBlocks(), 0.0
    )
    welcome = next(
        effect.frame for effect in brain.handle(e.Connected(1, HELLO, bytes(32)), 0.0) if isinstance(effect, e.Send)
    )
    assert isinstance(welcome, f.Welcome) and f.HANDOVER in welcome.features
    return brain


def test_the_question_is_answered_and_changes_nothing() -> None:
    brain = brain_of()
    effects = brain.handle(e.FrameReceived(1, ASK), 1.0)
    answers = [
        effect.frame for effect in effects if isinstance(effect, e.Send) and isinstance(effect.frame, f.Takeover)
    ]
    assert answers == [f.Takeover(False)] and brain.peer == 1
    effects = brain_of("no root").handle(e.FrameReceived(1, ASK), 1.0)
    assert e.Send(1, f.Takeover(False, "no root")) in effects


def test_the_old_primary_is_not_heard_any_more_after_its_final_handover() -> None:
    brain = brain_of()
    effects = brain.handle(e.FrameReceived(1, FINAL), 1.0)
    assert e.TakeOver(1, "10.0.0.1:7790") in effects
    assert not [effect for effect in effects if isinstance(effect, e.Send) and isinstance(effect.frame, f.Takeover)], (
        "it is answered when it is done"
    )
    assert brain.peer is None and brain.handle(e.FrameReceived(1, f.Begin(1, 7, 0)), 1.0) == []


def test_a_final_handover_at_another_position_is_refused() -> None:
    effects = brain_of().handle(e.FrameReceived(1, replace(FINAL, sequence=12)), 1.0)
    (answer,) = (
        effect.frame for effect in effects if isinstance(effect, e.Send) and isinstance(effect.frame, f.Takeover)
    )
    assert answer.final and answer.refusal and not [effect for effect in effects if isinstance(effect, e.TakeOver)]
