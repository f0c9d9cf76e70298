"""Ways to break a secondary: each has to be caught by some seed, as those of ``mutants``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pydbt.controller.secondary.engine import Engine
from pydbt.controller.secondary.kept_target import KeptTarget
from pydbt.controller.secondary.workers import Applier
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.primary.overview import Overview
from pydbt.core.primary.state import KnownReplica
from pydbt.core.primary.wait_answers import Lack, WaitAnswers
from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.handover_watch import HandoverWatch
from pydbt.core.secondary.keeper import Keeper
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.session import Session
from pydbt.store.journal_files import JournalFiles


def _acknowledged_early(right: Callable, self: Keeper, entry: object, connection: int, **named: object) -> None:
    right(self, entry, connection, **named)
    if isinstance(entry, f.Stream) and named.get("geometry") is None:
        self.sequence = entry.last


def _freed_early(right: Callable, self: Keeper, event: e.JournalDurable) -> None:
    right(self, event)
    self.effects.append(e.FreeJournal(self.tail))


def _checkpoint_early(right: Callable, self: Keeper, mark: object, now: float) -> None:
    right(self, mark, now)
    if self.record.consistent and mark.position > self.record.checkpoint and mark.position >= self._must_reach:
        self._checkpoint(mark)


def _apply_early(right: Callable, self: Keeper, entry: object, connection: int, **named: object) -> None:
    right(self, entry, connection, **named)
    if isinstance(entry, f.Stream) and named.get("geometry") is None:
        self.effects.append(e.Write(self.ticket(), entry))


def _stage_dropped(right: Callable, self: Recovery, header: object, epoch: int, *mark: object) -> None:
    right(self, header, epoch, *mark)
    if header.kind.name == "COMMIT":
        self.stage_from = None
    elif self.stage_from is not None:
        self.tail = self.stage_from


def _stage_applied(right: Callable, self: Recovery, header: object, epoch: int, *mark: object) -> None:
    right(self, header, epoch, *mark)
    self.limit = self.tail


def _commit_early(right: Callable, self: Keeper, entry: object, connection: int) -> None:
    right(self, entry, connection)
    if isinstance(entry, tuple):
        self.persist(replace(self.record, consistent=True, epoch=entry[1], sequence=entry[0].sequence))


def _persist_last(right: Callable, self: Engine, effects: list, connections: object) -> None:
    late, self._late = getattr(self, "_late", []), [effect for effect in effects if isinstance(effect, e.Persist)]
    right(self, [effect for effect in effects if not isinstance(effect, e.Persist)] + late, connections)


def _ended_by_the_last_word(right: Callable, self: HandoverWatch, connection: int, frame: f.Frame, now: float) -> bool:
    return right(self, connection, f.Ping(0) if isinstance(frame, f.Handover) and frame.final else frame, now)


def _forgotten(right: Callable, self: HandoverWatch, connection: int, frame: f.Frame, now: float) -> bool:
    return right(self, connection, frame, now) or (self.kept is not None and now > 300.0)


def add(instead: Callable, around: Callable) -> None:
    """To the known ones."""
    around("an acknowledgement before durability", Keeper, "append", _acknowledged_early)
    instead("the journal is not synced", JournalFiles, "sync", lambda self: self._unsynced.clear())
    instead("the target is not synced before the checkpoint", Applier, "_sync", lambda self: None)
    around("the journal is freed before it is applied", Keeper, "journal_durable", _freed_early)
    around("the checkpoint moves before the target is synced", Keeper, "applied", _checkpoint_early)
    around("a write is applied before it is durable in the journal", Keeper, "append", _apply_early)
    around("a stage is dropped at a start", Recovery, "add", _stage_dropped)
    around("an unfinished stage is applied at a start", Recovery, "add", _stage_applied)
    instead(
        "all that is out of sync counts as only on its way", Overview, "on_the_way_bytes",
        lambda self, resync: self.out_of_sync_bytes(resync),
    )  # fmt: skip
    instead(
        "staged blocks are compared with the target", StagedBlocks, "of", lambda self, *given: np.zeros(0, np.int64)
    )
    instead("an image in pieces is not called inconsistent", Keeper, "_give_up_image", lambda self: None)
    around("a direct resync is called consistent before it is durable", Keeper, "write", _commit_early)
    around("the state file is written after what depends on it", Engine, "_carry_out", _persist_last)
    instead("who is asked to take over does not write that down", HandoverWatch, "begun", lambda self, *given: None)
    around("the last word of a primary counts as one that goes on", HandoverWatch, "ends", _ended_by_the_last_word)
    around(
        "a question that was taken back stays open", HandoverWatch, "answer",
        lambda right, self, session, frame, refusal: [] if frame.is_withdrawal else right(self, session, frame, refusal),
    )  # fmt: skip
    around("a change of places that takes long is forgotten", HandoverWatch, "ends", _forgotten)
    around(
        "a primary that asks before a mount is forgotten", Secondary, "handle",
        lambda right, self, *given: [one for one in right(self, *given) if one != e.KeepGateQuestion(open=True)],
    )  # fmt: skip
    around(
        "a primary that asked before a mount counts for ever", PrimaryWatch, "heard",
        lambda right, self, now: bool(right(self, now)) and False,
    )  # fmt: skip
    instead("a comparison does not wait for the stream before it", Keeper, "streaming", property(lambda self: False))
    around(
        "BLOCKS acknowledged before the target is synced", Keeper, "written",
        lambda right, self, ticket: (
            [self._owner.batch_ended(write.connection, write.frame.batch) for write in self._writes._under_way
             if write.ticket <= ticket and isinstance(write.frame, f.Blocks)],
            right(self, ticket),
        )[1],
    )  # fmt: skip
    instead(
        "a secondary is up to date as long as it is connected", Session, "is_fresh", lambda self, sequence, now: True
    )
    instead("a heartbeat is as old as its arrival", Session, "_made_at", lambda self, ping, now: now)
    instead("a refused record stays in the journal", JournalFiles, "cut", lambda self, position: None)
    instead(
        "what is kept aside is not saved before the journal is freed",
        KeptTarget,
        "sync",
        lambda self: self._target.sync(),
    )
    instead(
        "a block that is kept aside is given up before it is on the target",
        KeptTarget,
        "_takes",
        lambda self, number: True,
    )
    instead("a target that lacks a block is called usable", Secondary, "problem", property(lambda self: self.trouble))
    instead(
        "what a bad block may have lost is not sent again",
        KnownReplica,
        "take_doubtful",
        lambda self: np.zeros(0, np.int64),
    )
    instead("a wait for a block that cannot get there ends well", WaitAnswers, "_lack", lambda self: Lack.NOTHING)
    around(
        "a stream that jumps is taken", Session, "accept_stream",
        lambda right, self, frame, **named: (setattr(self, "_received", None), right(self, frame, **named))[1],
    )  # fmt: skip
