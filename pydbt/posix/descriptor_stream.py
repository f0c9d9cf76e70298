"""What stands in the place of ``sys.stderr``, and says of itself what its descriptor is."""

from __future__ import annotations

import io
import os


class DescriptorStream(io.TextIOBase):
    """A text stream over a descriptor, which is not the stream's to close. Each kind has a ``write`` of its own."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True
