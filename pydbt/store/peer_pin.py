"""The machine on the other side of a volume: the file ``peer`` in a state directory, ``peer-2`` for a second secondary."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.store.atomic import replace_file

PEER_FILE_NAME = "peer"


class PeerPin:
    """The name in the other side's certificate: given by the operator, or taken from the first machine that was accepted."""

    def __init__(self, state_dir: Path, given: str | None, name: str = PEER_FILE_NAME) -> None:
        self._path = state_dir / name
        self._given = given
        self._kept = self._read()

    def objection(self, name: str) -> str:
        """The reason why a machine of this name is not the other side, as a sentence; empty when it may be."""
        expected = self._given or self._kept
        if not expected or name == expected:
            return ""
        return (
            f"it proves to be {name!r}, and this volume belongs with {expected!r}: "
            f"if the other machine has changed, add --peer {name} once"
        )

    def remember(self, name: str) -> None:
        """Record that this machine was accepted. StateError when the file cannot be written."""
        if name and name != self._kept:
            self._kept = name
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, f"{name}\n".encode())

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(
                f"{self._path} cannot be read ({error}): remove it; the next machine that connects is then accepted"
            ) from error


class Unpinned:
    """For a connection that only asks whether a machine answers: its name is not recorded."""

    def __init__(self, given: str | None) -> None:
        self._given = given

    def objection(self, name: str) -> str:
        """As in ``PeerPin``."""
        return f"it proves to be {name!r}, and not {self._given!r}" if self._given and name != self._given else ""

    def remember(self, name: str) -> None:
        pass
