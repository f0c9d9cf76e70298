"""The era that is recorded for a replica, and the map that belongs to it. One file holds both, so they change together.

Numbers are little-endian.

======  =======  ==============================================================================
offset  bytes    content
======  =======  ==============================================================================
0       8        magic ``PDBTERA`` and a zero byte
8       4        version, 1
12      4        bytes of this header, 64
16      16       the replica
32      16       identity of the era metadata (in the header of their device)
48      4        era
52      4        sectors of a region
56      8        reserved, zero
64      ...      a map of the volume, as in ``map_image``, with its own digest
end-16  16       xxh3_128 digest, big-endian, of everything before it
======  =======  ==============================================================================
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import xxhash

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary.era_bound import Intent
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.units import SECTOR_BYTES
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.map_image import MAP_BYTES_MAX, MapHeader, decode_map, map_parts
from pydbt.store.versions import newer

_MAGIC = b"PDBTERA\0"
_VERSION = 1
_HEADER = struct.Struct("<8sII16s16sII8x")
_DIGEST_BYTES = 16


def save_intent(path: str | os.PathLike[str], intent: Intent, header: MapHeader, dirty: DirtyMap) -> None:
    """Replace the file, durably. StateError when it cannot be written."""
    replace_file(path, intent_parts(intent, header, dirty))


class IntentKeeper:
    """The file of one secondary. It is saved in a thread, and what is forgotten meanwhile does not come back with that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forgotten = 0

    @property
    def forgotten(self) -> int:
        """How often it was forgotten: to be given to ``save``."""
        return self._forgotten

    def save(self, forgotten: int, intent: Intent, header: MapHeader, dirty: DirtyMap) -> bool:
        """Replace the file, durably, unless it was forgotten since. StateError when it cannot be written."""
        with self._lock:
            if forgotten != self._forgotten:
                return False
            save_intent(self._path, intent, header, dirty)
            return True

    def forget(self) -> None:
        """Remove the file, durably; a save under way ends first. StateError when that fails."""
        with self._lock:
            self._forgotten += 1
            if self._path.exists():
                remove_file(self._path)


def load_intent(path: str | os.PathLike[str]) -> tuple[Intent, MapHeader, DirtyMap] | None:
    """The content of a file; None when there is no file. StateError when it is torn or of another kind."""
    try:
        return decode_intent(read_own(path, MAP_BYTES_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    except NewerVersion as error:
        raise newer(path, error, "move it away; the whole volume is then compared again") from None
    except ValueError as error:
        raise StateError(f"{path} is not whole ({error})") from error


def intent_parts(intent: Intent, header: MapHeader, dirty: DirtyMap) -> Iterator[bytes]:
    """The bytes of the file in pieces, as ``map_parts`` gives them."""
    identities = bytes.fromhex(intent.replica), bytes.fromhex(intent.metadata)
    sectors = intent.region_bytes // SECTOR_BYTES
    head = _HEADER.pack(_MAGIC, _VERSION, _HEADER.size, *identities, intent.era, sectors)
    digest = xxhash.xxh3_128()
    for part in chain((head,), map_parts(header, dirty)):
        digest.update(part)
        yield part
    yield digest.digest()


def decode_intent(data: bytes) -> tuple[Intent, MapHeader, DirtyMap]:
    """The content of a file, from its bytes. ValueError when they are damaged or of another kind."""
    if len(data) < _HEADER.size + _DIGEST_BYTES:
        raise ValueError(f"it has only {len(data)} bytes")
    magic, version, header_bytes, replica, metadata, era, sectors = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("its first bytes are not those of an era file")
    content = data[:-_DIGEST_BYTES]
    if xxhash.xxh3_128_digest(content) != data[-_DIGEST_BYTES:]:
        raise ValueError("its checksum is wrong")
    check_version(version, _VERSION)
    if header_bytes != _HEADER.size:
        raise ValueError("its layout is not that of version 1")
    return Intent(replica.hex(), metadata.hex(), sectors * SECTOR_BYTES, era), *decode_map(content[_HEADER.size :])
