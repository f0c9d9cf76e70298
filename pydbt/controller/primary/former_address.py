"""The old primary still connects to the address where this volume was a replica: it is told that it was superseded.

The file ``former-address`` in the state directory of a promoted replica has that address, one line.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.secondary.connections import Connections
from pydbt.controller.secondary.promoted import answering
from pydbt.core.errors import BusyError, PydbtError, StateError
from pydbt.network.address import check_plain_tcp, split_address
from pydbt.network.listen import listen
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.peer_pin import Unpinned
from pydbt.store.replica_state import load_record

FORMER_ADDRESS_NAME = "former-address"

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
    except BusyError as error:
        _log.info(
            "%s; if that is 'controller secondary' of this volume, it tells the old primary that it was superseded",
            error,
        )
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
    else:
        secure = Secure(load_identity(options.identity), Unpinned(None))
    return answering(listen(*address), lambda: record, secure)


def _read(path: Path) -> tuple[str, int] | None:
    try:
        return split_address(read_own(path).decode("ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None
