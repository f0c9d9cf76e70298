"""The machine at the other end of a volume: the file ``peer`` in a state directory, ``peer-2`` for a second secondary.

The fingerprint of its key is in ``peer.key`` beside it. Earlier versions know the name alone.
"""

from __future__ import annotations

from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.core.protocol.peer_identity import Machine, PeerObjection, objection_to
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import Unsafe, make_folder, read_own

PEER_FILE_NAME = "peer"


class PeerPin:
    """Name and key in the peer's certificate: the name given by the operator, or both of the first that was accepted.

    With a given name and ``any_key`` the key may be another one, once: the first that is accepted is kept.
    """

    def __init__(
        self, state_dir: Path, given: str | None, name: str = PEER_FILE_NAME, *, any_key: bool = False
    ) -> None:
        self._path = state_dir / name
        self._given, self._any_key = given or "", any_key
        self._kept = Machine(self._read(self._path), self._read(self._key_path))

    def objection(self, proved: Machine) -> PeerObjection | None:
        """The reason why a machine is not the peer; None when it may be."""
        return objection_to(proved, self._kept, self._given, any_key=self._any_key)

    @property
    def _key_path(self) -> Path:
        return self._path.with_name(key_file_name(self._path.name))

    def remember(self, accepted: Machine) -> None:
        """Record that this machine was accepted. StateError when a file cannot be written."""
        self._any_key = False
        if not accepted.name or accepted == self._kept:
            return
        self._make_folder()
        # The key first: between the two writes the old name is never taken with any key.
        replace_file(self._key_path, f"{accepted.key}\n".encode())
        replace_file(self._path, f"{accepted.name}\n".encode())
        self._kept = accepted

    def _make_folder(self) -> None:
        """The first contact of a new volume comes before its state directory is made."""
        try:
            make_folder(self._path.parent)
        except Unsafe as error:
            raise StateError(f"{self._path.parent} is not safe from other users: {error}") from None
        except OSError as error:
            raise StateError(f"{self._path.parent} cannot be made: {error.strerror}") from None

    def _read(self, path: Path) -> str:
        try:
            return read_own(path).decode().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(
                f"{path} cannot be read ({error}): remove it; the next machine that connects is then accepted"
            ) from error


def key_file_name(name: str) -> str:
    """The file of the key beside that of the name."""
    return f"{name}.key"


class Unpinned:
    """For a connection that only asks whether a machine answers: its name is not recorded."""

    def __init__(self, given: str | None) -> None:
        self._given = given or ""

    def objection(self, proved: Machine) -> PeerObjection | None:
        """As in ``PeerPin``."""
        return objection_to(proved, Machine(), self._given)

    def remember(self, accepted: Machine) -> None:
        pass
