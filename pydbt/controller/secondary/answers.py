"""What is sent to one peer, by a thread of its own: a peer that reads nothing holds up neither the loop nor another peer."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import Frame
from pydbt.network.connection import FramedConnection

_log = logging.getLogger(__name__)

WAITING_MAX = 4096
"""Frames, behind megabytes in the kernel: a primary that goes on asking and reads no answer is cut."""

Sent = Callable[[], None]


def _nothing() -> None:
    pass


class Answers:
    """Frames to one peer, in order. RuntimeError when the machine has no room for one more thread."""

    def __init__(self, connection: FramedConnection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[tuple[Frame, Sent] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, sent: Sent = _nothing) -> None:
        """Never waits; ``sent`` is called when the frame went. The connection of a peer that takes nothing is closed."""
        if self._queue.qsize() >= WAITING_MAX:
            self._connection.close()  # its receiver reports
        elif not self._connection.closed:
            self._queue.put((frame, sent))

    def finish(self) -> None:
        """End sending when everything that was put is sent. Receiving continues."""
        self._queue.put(None)

    def wait_sent(self, timeout_s: float) -> None:
        """After ``finish``: wait until everything is sent, or for this long."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                frame, sent = item
                self._connection.send_frames([frame])
                sent()
                del item, frame, sent
        except PeerError:
            self._connection.close()  # its receiver reports
        except Exception:  # a fault of ours must not leave a connection that looks alive
            _log.exception("the answers to %s ended", self._connection.peer)
            self._connection.close()
        else:
            self._connection.finish()
