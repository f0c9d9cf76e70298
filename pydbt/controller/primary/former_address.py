"""The old primary still connects to the address where this volume was a replica: it is told that it was superseded.

The file ``former-address`` in the state directory of a promoted replica has that address, one line.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.secondary.connections import Connections
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.protocol.frames import SUPERSEDED, Refuse
from pydbt.core.secondary import events as e
from pydbt.core.secondary.promotion import superseded_words
from pydbt.core.units import MIB
from pydbt.network.address import check_plain_tcp, split_address
from pydbt.network.arena import Arena
from pydbt.network.listen import listen
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.atomic import replace_file
from pydbt.store.peer_pin import Unpinned
from pydbt.store.replica_state import load_record

FORMER_ADDRESS_NAME = "former-address"
_ARENA_BYTES = 1 * MIB

_log = logging.getLogger("pydbt")


def keep_former_address(state_dir: Path, address: str) -> None:
    """Remember where the promoted replica listened. StateError when it cannot be written."""
    replace_file(state_dir / FORMER_ADDRESS_NAME, f"{address}\n".encode())


@contextlib.contextmanager
def answering_the_old_primary(options: PrimaryOptions) -> Iterator[None]:
    """Answer there, if this volume was promoted. An address that cannot be had is logged, and nothing more."""
    connections: Connections | None = None
    try:
        connections = _connections(options)
    except PydbtError as error:
        _log.warning("an old primary that comes back is not told that it was superseded: %s", error)
    try:
        yield
    finally:
        if connections is not None:
            connections.stop()


def _connections(options: PrimaryOptions) -> Connections | None:
    record = load_record(options.state_dir)
    address = _read(options.state_dir / FORMER_ADDRESS_NAME)
    if record is None or not record.promoted or address is None:
        return None
    secure = None
    if options.identity is None:
        check_plain_tcp(address[0], options.insecure)
        words = "the replica was promoted, and is the volume now"
    else:
        secure = Secure(load_identity(options.identity), Unpinned(None))
        words = superseded_words(socket.gethostname(), record.promoted)

    def answer(event: e.Event) -> None:
        """In the thread of the connection."""
        if isinstance(event, e.Connected):
            known = event.hello.volume == record.volume
            refuse = (
                Refuse(SUPERSEDED, words) if known else Refuse("other-volume", "this is not a replica of that volume")
            )
            connections.send(event.connection, refuse)
            connections.close(event.connection, refuse.message)

    connections = Connections(listen(*address), Arena(_ARENA_BYTES), answer, secure=secure)
    connections.start()
    return connections


def _read(path: Path) -> tuple[str, int] | None:
    try:
        return split_address(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None
