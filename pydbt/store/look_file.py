"""The last look at a target as a file: written in place, because it changes with every write to the target.

``target``: one line of JSON, padded with spaces to 1024 bytes, and the xxh3_128 of all of it in hexadecimal digits. One call
writes it, so that a kill leaves the old or the new one. After a power loss it may be torn: then there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pydbt.core.checksum import digest_of
from pydbt.core.secondary.target_watch import KeptLook
from pydbt.posix.files import write_all
from pydbt.posix.ownership import OPEN_OWN, read_own

LOOK_FILE_NAME = "target"
_BODY_BYTES = 1024


class LookFile:
    """The file in a secondary's state directory. A look that cannot be written is none: only less is noticed then."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / LOOK_FILE_NAME
        self._descriptor: int | None = None

    def load(self) -> KeptLook | None:
        """The look that was left; None without a whole one."""
        try:
            data = read_own(self._path)
            body, digest = data[:_BODY_BYTES], data[_BODY_BYTES:]
            if digest != digest_of(body):
                return None
            return KeptLook.from_values(json.loads(body))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def save(self, kept: KeptLook) -> None:
        """Write it; one that is ``durable`` is on the disk when this returns."""
        body = json.dumps(kept.to_values()).encode().ljust(_BODY_BYTES)
        if len(body) > _BODY_BYTES:
            body = b" " * _BODY_BYTES
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | OPEN_OWN, 0o600)
            write_all(self._descriptor, [body + digest_of(body)], 0)
            if kept.durable:
                os.fsync(self._descriptor)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
