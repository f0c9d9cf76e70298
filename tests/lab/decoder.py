"""Frames out of bytes that arrive in pieces, for tests that have no socket."""

from __future__ import annotations

from collections.abc import Iterator

from pydbt.core.errors import WireError
from pydbt.core.protocol import wire
from pydbt.core.protocol.frames import Frame
from pydbt.core.units import Buffer


class Decoder:
    """Frames out of a stream of bytes cut anywhere. After a WireError it takes nothing more."""

    def __init__(self) -> None:
        self._header_bytes = bytearray()
        self._header: wire.FrameHeader | None = None
        self._body = bytearray()
        self._have = 0
        self._number = 0
        self._frames: list[Frame] = []
        self._error: WireError | None = None

    def feed(self, data: Buffer) -> None:
        """Take bytes. Raises nothing: a fault shows when the frames before it have been taken."""
        view = memoryview(data).cast("B")
        try:
            while len(view) and self._error is None:
                view = self._take_header(view) if self._header is None else self._take_body(view)
        except WireError as error:
            self._error = error

    def next(self) -> Frame | None:
        """The next whole frame, None when more bytes are needed. Raises WireError."""
        if self._frames:
            return self._frames.pop(0)
        if self._error is not None:
            raise self._error
        return None

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.next()) is not None:
            yield frame

    def _take_header(self, view: memoryview) -> memoryview:
        need = wire.FRAME_HEADER_BYTES - len(self._header_bytes)
        self._header_bytes += view[:need]
        if len(self._header_bytes) == wire.FRAME_HEADER_BYTES:
            self._header = wire.decode_frame_header(self._header_bytes)
            wire.check_number(self._header, self._number)
            self._body, self._have = bytearray(self._header.body_length), 0
        return view[need:]

    def _take_body(self, view: memoryview) -> memoryview:
        assert self._header is not None
        piece = view[: self._header.body_length - self._have]
        self._body[self._have : self._have + len(piece)] = piece
        self._have += len(piece)
        if self._have == self._header.body_length:
            self._frames.append(wire.decode_body(self._header, self._body))
            self._header, self._header_bytes, self._number = None, bytearray(), self._number + 1
        return view[len(piece) :]
