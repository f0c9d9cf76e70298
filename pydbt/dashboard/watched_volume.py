"""One volume or replica of this machine as the collector knows it: its controller's last answer, and how old that is."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from pydbt.controller.conversation import Conversation
from pydbt.core.errors import NotRunning, PydbtError, StateError
from pydbt.core.printable import printable
from pydbt.core.seen.advance import LastingAdvance
from pydbt.core.seen.backlog import BacklogWatch
from pydbt.core.seen.byte_rate import ByteRate
from pydbt.core.seen.sight import Asked, Sight, is_shallow, sight_of
from pydbt.core.seen.view import View
from pydbt.dashboard.places import VolumePlace

UNANSWERED_S = 5.0
"""A controller that has not answered by then is asked again on another connection."""
_LATE_S = 0.5
"""A picture does not wait for one that took longer than this the last time."""
LAST_KNOWN_S = 10.0
"""How often it is looked what a volume without a controller has come to: its map is read for it."""
SHARE = 20.0
"""A large map takes long to read: no more than this part of the time is spent on it."""
# What a status that was heard tells of a volume whose controller is gone by now.
_LASTING = (
    "role", "source", "target", "volume", "size_bytes", "size", "block_bytes", "tainted", "gate", "refused", "last_in_sync",
    "identity",
)  # fmt: skip


class WatchedVolume:
    """Asked once a round. ``registered``: the socket that the selector knows; ``last_known``: of one without a controller."""

    def __init__(self, place: VolumePlace) -> None:
        self.place = place
        self.registered: socket.socket | None = None
        self.last_known: dict[str, Any] | None = None
        self.is_stopped = False
        self.look_took_s = 0.0
        self._conversation = Conversation(place.where)
        self._status: dict[str, Any] = {}
        self._heard_at = -inf
        self._asked_at: float | None = None
        self._silence = ""
        self._late = False
        self._rate, self._backlog = ByteRate(), BacklogWatch()
        self._advance, self._back = LastingAdvance(), ""
        self._looked_at = -inf

    @property
    def volume(self) -> str:
        """The identity of the volume, as its programs are named by it; empty where it is unknown, or a stranger tells it."""
        status = self._status or self.last_known or {}
        return "" if "user" in status else str(status.get("volume") or "").replace("-", "")

    @property
    def has_told(self) -> bool:
        """Whether it has answered once, or is known not to run."""
        return self._heard_at > -inf or self.is_stopped

    @property
    def wire(self) -> socket.socket | None:
        return self._conversation.wire

    @property
    def is_asked(self) -> bool:
        """Whether an answer is owed."""
        return self._asked_at is not None

    @property
    def is_awaited(self) -> bool:
        """Whether it was asked, and is expected to answer soon."""
        return self._asked_at is not None and not self._late

    def ask(self, now: float) -> bool:
        """Ask it, unless an answer is still awaited. Whether that was all that there is to do."""
        if self._asked_at is not None:
            return False
        self._asked_at = now
        try:
            self._conversation.ask_status()
        except Exception as error:  # whatever another user has made of his directory hides no other volume
            self._failed(error)
        return True

    def take(self, now: float) -> None:
        """Take the answer, if it is there by now. Without a question, its controller can only have closed the connection."""
        if self._asked_at is None:
            self._conversation.close()
            return
        try:
            status = self._conversation.take()
        except Exception as error:
            self._conversation.close()
            self._failed(error)
            return
        if status is not None and not is_shallow(status):
            self._conversation.close()
            self._failed(StateError("its status is none: there are lists in lists without end"))
        elif status is not None:
            self._answered(status, now, self._asked_at)
        elif now - self._asked_at > _LATE_S:
            self._late = True
            if now - self._asked_at > UNANSWERED_S:
                self._silence = f"the controller gave no answer within {UNANSWERED_S:g} s"
                self._conversation.close()
                self._asked_at = None

    def _answered(self, status: dict[str, Any], now: float, asked_at: float) -> None:
        """Its status is as old as the question: an answer may lie there for long before this process gets to read it."""
        self._status, self._heard_at, self._silence, self.is_stopped = status, asked_at, "", False
        self._asked_at, self._late, self._looked_at = None, now - asked_at > _LATE_S, -inf
        view = View(status)
        self._back = self._advance.look(view.part("progress"), view.text("mode") or "", now)
        self._backlog.look(asked_at, view)
        self._rate.observe(
            now, view.number("sent_bytes") if view.text("role") == "primary" else view.number("received_bytes")
        )

    def _failed(self, error: Exception) -> None:
        self._asked_at, self._late = None, False
        self._rate.observe(0.0, None)
        self._backlog.forget()
        self.is_stopped = isinstance(error, NotRunning)
        known = isinstance(error, PydbtError)
        self._silence = printable(str(error)) if known else f"its state cannot be read: {printable(_why(error))}"

    def wants_last_known(self, now: float) -> bool:
        """Whether it is time to look what one without a controller has come to. It is done then."""
        if now - self._looked_at < max(LAST_KNOWN_S, SHARE * self.look_took_s):
            return False
        self._looked_at = now
        return True

    def sight(self, machine: str, now: float) -> Sight:
        """How it stands, by the last answer, or by what is known without one."""
        if self.is_stopped:
            return seen(Asked(self._as_stopped(), self._age_of_stopped(now)), self.place, machine)
        if not self._status:
            return seen(Asked({self.place.key: self.place.device}, 0.0, self._silence), self.place, machine)
        status = {**self._status, "running": True, "state_dir": str(self.place.where)}
        age_s = now - self._heard_at
        growth = self._backlog.growth_bytes
        return seen(Asked(status, age_s, self._silence, self._rate.per_second, self._back, growth), self.place, machine)

    def _as_stopped(self) -> dict[str, Any]:
        if self.last_known is not None:
            return {**self.last_known, "running": False}
        kept = {name: self._status[name] for name in _LASTING if name in self._status}
        known = {self.place.key: self.place.device, **kept, "state_dir": str(self.place.where)}
        return {**known, "running": False, "problem": "no controller is running"}

    def _age_of_stopped(self, now: float) -> float:
        """Since the status was saved; of one that was not, since it was heard."""
        try:
            saved = datetime.fromisoformat(View(self.last_known).text("saved_at") or "")
            return max((datetime.now(UTC) - saved.astimezone(UTC)).total_seconds(), 0.0)
        except (ValueError, OverflowError):
            return max(now - self._heard_at, 0.0) if self._heard_at > -inf else 0.0

    def close(self) -> None:
        self._conversation.close()
        self._asked_at = None


def seen(asked: Asked, place: VolumePlace, machine: str) -> Sight:
    """As of now."""
    view = View(asked.status)
    device = view.text("source") or view.text("target") or ""
    name = place.name or os.path.basename(device) or device or place.id
    return sight_of(asked, place.id, machine, name, datetime.now(UTC))


def name_for(where: Path, device: str, root: Path) -> str:
    """What it is called: by its configuration, whose name its state directory has; else by its device."""
    return where.name if where.parent == root else os.path.basename(device) or device


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or repr(error)
