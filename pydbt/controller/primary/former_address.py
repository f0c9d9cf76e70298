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


class FormerAddress:
    """Answers there, if this volume was promoted. An address that cannot be had is logged, and nothing more."""

    def __init__(self, options: PrimaryOptions) -> None:
        self._options = options
        self._connections: Connections | None = None

    def answer(self) -> None:
        """Begin, unless it has begun."""
        if self._connections is not None:
            return
        try:
            self._connections = _connections(self._options)
        except BusyError as error:
            _log.info(
                "%s; if that is 'controller secondary' of this volume, it tells the old primary that it was superseded",
                error,
            )
        except PydbtError as error:
            _log.warning("an old primary that comes back is not told that it was superseded: %s", error)

    def make_way(self) -> None:
        """Answer no more: this side is to be a secondary again, perhaps at that very address. Idempotent."""
        if self._connections is not None:
            self._connections.stop()
            self._connections = None


@contextlib.contextmanager
def answering_the_old_primary(options: PrimaryOptions) -> Iterator[FormerAddress]:
    """As long as this lasts."""
    former = FormerAddress(options)
    former.answer()
    try:
        yield former
    finally:
        former.make_way()


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
