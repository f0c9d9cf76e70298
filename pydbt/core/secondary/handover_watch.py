"""Whether a change of places that a replica was asked for is still open, by the frames that its primary sends."""

from __future__ import annotations

from pydbt.core.protocol.frames import WITHDRAWAL, Bye, Frame, Handover, Takeover
from pydbt.core.secondary import events as e
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.session import Session

ASKED_LASTS_S = 300.0
"""A primary of an earlier version that goes on in the same connection tells nothing of a change that it gave up. By default it
does so after 60 s."""


class HandoverWatch:
    """The one that is open. It lives as long as the process: the next brain knows it too. Times are monotonic."""

    def __init__(self, kept: OpenHandover | None = None) -> None:
        self.kept = kept
        self._asked_in: int | None = None  # the connection
        self._asked_at = 0.0
        self._is_taken_back = False  # should it be given up: the primary tells that

    def answer(self, session: Session, frame: Handover, refusal: str) -> list[e.Effect]:
        """To a question, to one that is taken back, or to a last frame that is refused."""
        if frame.is_withdrawal:
            is_open = self.kept is not None and self.kept.stage is HandoverStage.ASKED
            return [e.KeepHandover(None)] if is_open and self._asked_in == session.connection else []
        self._is_taken_back = WITHDRAWAL in session.hello.features
        begun = self.begun(session.connection, frame, refusal, session.heard_at)
        kept: list[e.Effect] = [] if begun is None else [e.KeepHandover(begun)]
        return [*kept, e.Send(session.connection, Takeover(frame.final, refusal))]

    def begun(self, connection: int, frame: Handover, refusal: str, now: float) -> OpenHandover | None:
        """To be kept before the answer ``refusal`` to a question, or to its last frame. None where nothing begins by that."""
        if refusal and not frame.final:
            return None
        self._asked_in, self._asked_at = connection, now
        stage = HandoverStage.REFUSED if frame.final else HandoverStage.ASKED
        return OpenHandover(stage, frame.listen, why=refusal)

    def ends(self, connection: int, frame: Frame, now: float) -> bool:
        """Whether this frame of a primary ends it: a former primary reports only that it was replaced."""
        if self.kept is None or isinstance(frame, Handover | Bye):
            return False
        return connection != self._asked_in or (not self._is_taken_back and now - self._asked_at > ASKED_LASTS_S)
