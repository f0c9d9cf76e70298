"""Ways to tell of what a crash forgets: each has to be caught, as those of ``mutants``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

from pydbt.controller.primary import opening
from pydbt.controller.primary import service as primary_service
from pydbt.controller.primary.inbox import Heard
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.unwritten import Unwritten
from pydbt.core.primary.wait_answers import WaitAnswers
from pydbt.core.protocol.generations import Generations
from pydbt.core.volume.saves import Resting, Withheld
from pydbt.store.volume_state import VolumeState


def _on_its_way() -> AbstractContextManager:
    shown = property(lambda self: self.state, lambda self, value: None)
    return patch.object(Metadata, "on_disk", shown, create=True)


def _answered(right: Callable, self: WaitAnswers) -> None:
    with patch.object(Unwritten, "waits", False):
        right(self)


def _told_late(right: Callable, self: Volume, now: float) -> None:
    waiting = len(self.events)
    right(self, now)
    while len(self.events) > waiting:
        _, event = self.events.pop()
        for peer in self.peers.values():
            self.inbox.post(Heard(peer, event))


def _without_taints(right: Callable, state_dir: Path, state: VolumeState, why: str) -> VolumeState:
    kept = right(state_dir, state, "")
    if why:
        opening.distrust_maps(state_dir, state)
    return kept


def add(mutants: dict[str, Callable[[], AbstractContextManager]], instead: Callable, around: Callable) -> None:
    """To the known ones."""
    around(
        "a secondary hears of a name before that is on the disk of its primary",
        Withheld,
        "rest_on",
        lambda right, self, save: None,
    )
    mutants["people are shown what is still on its way to the disk"] = _on_its_way
    around(
        "a taint that is answered is gone before that is on the disk",
        Unwritten,
        "add",
        lambda right, self, *taints: None if taints else right(self),
    )
    instead(
        "what was asked to be written counts as written", Resting, "take",
        lambda self, durable: [self._numbers.popleft()[1] for _ in range(len(self._numbers))],
    )  # fmt: skip
    around("a wait ends well before it is on the disk that the secondary is in sync", WaitAnswers, "answer", _answered)
    around("what the audit has told is written down before its taint", Volume, "audit", _told_late)
    around(
        "a start takes marks and programs away before its taint is on the disk",
        primary_service,
        "before_attaching",
        _without_taints,
    )
    instead(
        "one that is written down and not replicated to keeps an older name of the volume",
        Generations,
        "caught_up",
        lambda self, name: self,
    )
