"""Connect to a secondary and check that both ends mean the same volume, before a byte of it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydbt.core.errors import PeerError, PydbtError, TimedOut, WireError
from pydbt.core.primary.events import Disconnected, Received
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frames import HEARTBEAT, PROGRESS, SIDES, Hello, Refuse, Welcome
from pydbt.core.protocol.generations import Generations, objection
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection, StreamSocket
from pydbt.network.tls import Secure
from pydbt.store.volume_state import VolumeState

HANDSHAKE_SECONDS = 10.0
_CLOSED = {
    False: "is it a pydbt secondary, and does it ask for --identity?",
    True: "its log says why; perhaps it belongs with a machine of another name (see --peer there)",
}


class Refused(PeerError):
    """The secondary refused this volume; ``code`` is the reason, for programs."""

    def __init__(self, code: str, message: str, side: Divergence | None = None) -> None:
        """``side``: what only the secondary has, if it told."""
        super().__init__(message)
        self.code, self.side = code, side


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Hands were shaken."""

    connection: FramedConnection
    welcome: Welcome


# The outcome of an attempt to connect: the error that ended it, or Welcomed and then frames, until it ends.
Happening = Welcomed | PeerError | Received | Disconnected


def hello_of(state: VolumeState, sector_bytes: int, epoch: int, generations: Generations) -> Hello:
    """The greeting of a primary to one secondary; ``sector_bytes`` is the source's logical block."""
    return Hello(
        volume=state.volume,
        size_bytes=state.size_bytes,
        block_bytes=state.block_bytes,
        epoch=epoch,
        sector_bytes=sector_bytes,
        features=(PROGRESS, HEARTBEAT, SIDES),
        generations=generations,
    )


def shake_hands(host: str, port: int, hello: Hello, secure: Secure | None = None) -> tuple[FramedConnection, Welcome]:
    """A connection that has been welcomed. Raises PeerError, Refused or WireError with the connection closed."""
    connection = FramedConnection(_dial(host, port, secure))
    try:
        connection.send_frames([hello])
        answer = connection.recv_frame(HANDSHAKE_SECONDS)
        match answer:
            case Welcome():
                _check(hello, answer, f"{host}:{port}")
                if secure is not None:
                    secure.remember(connection.socket)
                return connection, answer
            case Refuse(code=code, message=message, side=side):
                raise Refused(code, f"the secondary at {host}:{port} refused: {message}", side)
            case None:
                raise PeerError(f"{host}:{port} closed the connection at once: {_CLOSED[secure is not None]}")
            case other:
                raise PeerError(f"{host}:{port} answered a greeting with {type(other).__name__}")
    except WireError as error:
        connection.close()
        raise PeerError(f"{host}:{port} is no pydbt secondary without TLS, or another version: {error}") from None
    except TimedOut:
        # A frozen secondary: its kernel accepts, and the process does not answer.
        connection.close()
        raise PeerError(
            f"{host}:{port} accepted the connection and said nothing for {HANDSHAKE_SECONDS:g} seconds"
        ) from None
    except BaseException:
        connection.close()
        raise


def _dial(host: str, port: int, secure: Secure | None) -> StreamSocket:
    sock = connect(host, port)
    if secure is None:
        return sock
    try:
        return secure.client(sock)
    except PeerError as error:
        raise PeerError(f"{host}:{port} is not to be talked to: {error}") from None


def _check(hello: Hello, welcome: Welcome, where: str) -> None:
    if welcome.volume not in (None, hello.volume):
        raise Refused("other-volume", f"the secondary at {where} holds volume {welcome.volume}, this is {hello.volume}")
    if welcome.volume is not None and (found := objection(hello.generations, welcome.generations)):
        raise Refused(*found)
    if welcome.size_bytes < hello.size_bytes:
        raise Refused(
            "too-small", f"the target at {where} has {welcome.size_bytes} bytes, the source {hello.size_bytes}"
        )


def converse(host: str, port: int, hello: Hello, secure: Secure | None, post: Callable[[Happening], None]) -> None:
    """Shake hands, then receive until the connection ends; ``post`` gets what happens. Raises nothing.

    First the PeerError that ended the attempt, or Welcomed; then Received events and one Disconnected.
    """
    try:
        connection, welcome = shake_hands(host, port, hello, secure)
    except PydbtError as error:
        post(error if isinstance(error, PeerError) else PeerError(str(error)))
        return
    post(Welcomed(connection, welcome))
    try:
        while (frame := connection.recv_frame()) is not None:
            post(Received(frame))
        post(Disconnected("the secondary closed the connection"))
    except PeerError as error:
        post(Disconnected(str(error)))
