"""Connect to a secondary and check that both ends mean the same volume, before a byte of it is sent."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydbt.controller.expiry import unusable
from pydbt.core.errors import NoAnswer, PeerError, PydbtError, TimedOut, Unreachable, WireError
from pydbt.core.primary.events import Disconnected, Received
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frames import (
    BOOT,
    HELLO_FEATURES,
    Bye,
    Frame,
    Hello,
    Refuse,
    Welcome,
)
from pydbt.core.protocol.generations import Generations, objection
from pydbt.core.protocol.refusals import is_expected, refusal_words
from pydbt.network.address import format_address
from pydbt.network.connect import connect
from pydbt.network.connection import SILENCE_S, FramedConnection, StreamSocket
from pydbt.network.tls import Secure
from pydbt.posix.boot import boot_id
from pydbt.store.volume_state import VolumeState

_log = logging.getLogger("pydbt")

HANDSHAKE_S = 10.0
"""What takes this long to answer a HELLO hangs, or is no secondary. Shorter than ``SILENCE_S``, so that this is what is told."""
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
        features=(*HELLO_FEATURES, f"{BOOT}{boot_id()}"),
        generations=generations,
    )


def shake_hands(
    host: str,
    port: int,
    hello: Hello,
    secure: Secure | None = None,
    expected: str = "",
    silence_s: float = SILENCE_S,
) -> tuple[FramedConnection, Welcome]:
    """A connection that has been welcomed. Raises PeerError, Refused or WireError with the connection closed.

    ``expected`` is the name of the replica that must be there; empty when any may be. ``silence_s``: how long the
    connection bears silence afterwards. When nobody can accept this machine's identity, the PeerError of a failure says that too.
    """
    try:
        return _shake_hands(host, port, hello, secure, expected, silence_s)
    except (Unreachable, Refused):
        raise
    except PeerError as error:
        if problem := unusable(secure):
            raise PeerError(f"{error}; {problem}") from None
        raise


def part_from(connection: FramedConnection) -> None:
    """Of a secondary that was only asked whether it is there: it is told that this is no loss."""
    with contextlib.suppress(PeerError):
        connection.send_frames([Bye("it is there; replication begins when every write is tracked")])
    connection.close()


def _shake_hands(
    host: str, port: int, hello: Hello, secure: Secure | None, expected: str, silence_s: float
) -> tuple[FramedConnection, Welcome]:
    where = format_address(host, port)
    connection, answer = greeted(host, port, hello, secure, silence_s)
    try:
        match answer:
            case Welcome():
                _check(hello, answer, where)
                _check_replica(answer, expected, where)
                if secure is not None:
                    secure.remember(connection.socket)
                return connection, answer
            case Refuse(code=code, message=message, side=side):
                raise Refused(code, f"the secondary at {where} refused: {message or refusal_words(code)}", side)
            case other:
                raise PeerError(f"{where} answered a greeting with {type(other).__name__}")
    except BaseException:
        connection.close()
        raise


def greeted(
    host: str, port: int, hello: Hello, secure: Secure | None = None, silence_s: float = SILENCE_S
) -> tuple[FramedConnection, Frame]:
    """A connection, and the first frame of the other side. Raises PeerError with the connection closed."""
    where = format_address(host, port)
    connection = FramedConnection(_dial(host, port, secure), silence_s=silence_s)
    try:
        answer = _answer(connection, hello)
        if answer is None:
            raise NoAnswer(f"{where} closed the connection at once: {_CLOSED[secure is not None]}")
        return connection, answer
    except WireError as error:
        connection.close()
        raise PeerError(f"{where} is no pydbt secondary without TLS, or another version: {error}") from None
    except TimedOut:
        # A frozen secondary: its kernel accepts, and the process does not answer.
        connection.close()
        raise NoAnswer(f"{where} accepted the connection and said nothing for {HANDSHAKE_S:g} seconds") from None
    except BaseException:
        connection.close()
        raise


def _answer(connection: FramedConnection, hello: Hello) -> Frame | None:
    """What the secondary answers. One that has turned this machine away may have closed before the HELLO was sent."""
    unsent: PeerError | None = None
    try:
        connection.send_frames([hello])
    except PeerError as error:
        unsent = error
    try:
        answer = connection.recv_frame(HANDSHAKE_S)
    except (WireError, TimedOut):
        raise
    except PeerError as error:
        raise NoAnswer(str(error)) from None
    if answer is None and unsent is not None:
        raise NoAnswer(str(unsent))
    return answer


def _dial(host: str, port: int, secure: Secure | None) -> StreamSocket:
    sock = connect(host, port)
    if secure is None:
        return sock
    try:
        return secure.client(sock)
    except NoAnswer as error:
        raise NoAnswer(f"no connection to {format_address(host, port)}: {error}") from None
    except PeerError as error:
        raise PeerError(f"no connection to {format_address(host, port)}: {error}") from None


def _check(hello: Hello, welcome: Welcome, where: str) -> None:
    if welcome.volume not in (None, hello.volume):
        raise Refused("other-volume", f"the secondary at {where} holds volume {welcome.volume}, this is {hello.volume}")
    if welcome.volume is not None and (found := objection(hello.generations, welcome.generations)):
        raise Refused(*found)
    if welcome.size_bytes < hello.size_bytes:
        raise Refused(
            "too-small", f"the target at {where} has {welcome.size_bytes} bytes, the source {hello.size_bytes}"
        )


def _check_replica(welcome: Welcome, expected: str, where: str) -> None:
    if not is_expected(expected, welcome.replica, welcome.formerly or ()):
        raise Refused(
            "other-replica",
            f"at {where} is another replica ({welcome.replica}) than the one of this volume ({expected}): bring that one back, "
            "or replicate to this one with --accept-replica, which overwrites all of it",
        )


def converse(
    host: str,
    port: int,
    hello: Hello,
    secure: Secure | None,
    expected: str,
    silence_s: float,
    post: Callable[[Happening], None],
) -> None:
    """Shake hands, then receive until the connection ends; ``post`` gets what happens. Raises nothing.

    First the PeerError that ended the attempt, or Welcomed; then Received events and one Disconnected.
    """
    try:
        connection, welcome = shake_hands(host, port, hello, secure, expected, silence_s)
    except PeerError as error:
        post(error)
        return
    except Exception as error:  # whatever it is: without a word of its end, nobody tries again
        _log.debug("an attempt to connect failed", exc_info=True)
        post(PeerError(str(error) if isinstance(error, PydbtError) else f"cannot connect to {host}: {error!r}"))
        return
    post(Welcomed(connection, welcome))
    try:
        while (frame := connection.recv_frame()) is not None:
            post(Received(frame))
        post(Disconnected("the secondary closed the connection"))
    except Exception as error:
        _log.debug("a connection ended", exc_info=True)
        post(Disconnected(str(error) if isinstance(error, PydbtError) else f"the connection broke: {error!r}"))
