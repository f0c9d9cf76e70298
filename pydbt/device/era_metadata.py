"""The device with dm-era's metadata, and the header that this program keeps in front of them.

dm-era's metadata name neither their disk nor themselves, and the kernel makes new metadata wherever it finds zeroes. So the
first MiB of the device belongs to this program. It holds one block of text: an identity that is new for all new metadata,
their region size, and the disk they belong to. ``made`` is false until the kernel has written its first superblock.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import DeviceError, StateError, UsageError
from pydbt.core.protocol.frame_checks import check_version
from pydbt.core.units import KIB, MIB, SECTOR_BYTES
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.disk_identity import differing_kinds
from pydbt.posix.files import write_all

ERA_HEADER_BYTES = 4096
# The kernel's metadata begin here.
ERA_START_BYTES = 1 * MIB
# Eight blocks of 8 KiB for each write under way and its copies. In addition 4 bytes per region, in the array and in the array
# that a snapshot keeps, and bits for each era that is not digested yet.
ERA_LEAST_BYTES = 8 * MIB
BYTES_A_REGION = 16
DEFAULT_REGION_BYTES = 64 * KIB
# dm-era: a multiple of 8 sectors, and fewer than 2^31 regions.
REGION_GRAIN_BYTES = 4 * KIB
MAX_REGIONS = (1 << 31) - 1
_FORMAT = "pydbt era metadata"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class EraHeader:
    """The header in front of the metadata. ``origin`` holds the identifiers of the disk (``BlockDevice.identity``)."""

    identity: str
    region_bytes: int
    origin_bytes: int
    origin: dict[str, str]
    made: bool = False


def encode_era_header(header: EraHeader) -> bytes:
    """The header as one block."""
    text = json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(header)}, ensure_ascii=True).encode() + b"\n"
    data = with_checksum(text)
    if len(data) > ERA_HEADER_BYTES:
        raise ValueError("the header does not fit into its block")
    return data.ljust(ERA_HEADER_BYTES, b"\0")


def decode_era_header(data: bytes) -> EraHeader:
    """The header in a block. ValueError, TypeError or KeyError when it is wrong."""
    content: dict[str, Any] = json.loads(checked(data.rstrip(b"\0")))
    if content.pop("format") != _FORMAT:
        raise ValueError("it is of another kind")
    check_version(content.pop("version"), _VERSION)
    if set(content) != {entry.name for entry in fields(EraHeader)}:
        raise ValueError("it has other entries than this version knows")
    return EraHeader(**content)


def read_era_header(metadata: BlockDevice) -> EraHeader:
    """The header on a device. StateError when it has none."""
    with DirectReader(metadata) as reader:
        return _header_of(metadata, _read(reader, 0, ERA_HEADER_BYTES))


def prepare_era_metadata(metadata: BlockDevice, device: BlockDevice, region_bytes: int | None) -> EraHeader:
    """The header of the metadata for ``device``: the one on the metadata device, or a new one, which is written there.

    ``region_bytes`` None takes the size in the header, or the default. UsageError when the device holds other data, or metadata
    of another disk or region size; StateError when it holds damaged metadata.
    """
    with DirectReader(metadata) as reader:
        if metadata.size_bytes < ERA_START_BYTES + ERA_LEAST_BYTES:
            raise UsageError(
                f"{metadata.path} is too small for era metadata: {_needed(device, region_bytes)} bytes are needed"
            )
        first = _read(reader, 0, ERA_HEADER_BYTES)
        found = _header_of(metadata, first) if first.startswith(b'{"format": "pydbt era') else None
        blank = _is_blank(_read(reader, ERA_START_BYTES, ERA_HEADER_BYTES))
        empty = (
            blank
            and found is None
            and all(_is_blank(_read(reader, at, 64 * KIB)) for at in range(0, ERA_START_BYTES, 64 * KIB))
        )
    if found is None and not empty:
        raise UsageError(
            f"{metadata.path} holds other data than era metadata of this program: name an empty device, or clear its first "
            f"{2 * ERA_START_BYTES} bytes"
        )
    if found is not None and found.made:
        if blank:
            raise StateError(
                f"the era metadata on {metadata.path} are missing: to begin again, clear its first {2 * ERA_START_BYTES} bytes"
            )
        _require_same(metadata, found, device, region_bytes)
        return found
    region_bytes = region_bytes or DEFAULT_REGION_BYTES
    if region_bytes % REGION_GRAIN_BYTES or not 0 < region_bytes <= device.size_bytes:
        raise UsageError(
            f"--era-region {region_bytes} is not a multiple of {REGION_GRAIN_BYTES} bytes that fits into {device.path}"
        )
    if -(-device.size_bytes // region_bytes) > MAX_REGIONS:
        raise UsageError(f"--era-region {region_bytes} makes too many regions of {device.path}: take a larger one")
    if metadata.size_bytes < (needed := _needed(device, region_bytes)):
        raise UsageError(
            f"{metadata.path} is too small for era metadata of {device.path} in regions of {region_bytes} bytes: "
            f"{needed} bytes are needed"
        )
    header = EraHeader(secrets.token_hex(16), region_bytes, device.size_bytes, device.identity())
    _write(metadata, 0, encode_era_header(header))
    _write(metadata, ERA_START_BYTES, bytes(ERA_HEADER_BYTES))  # the kernel makes new metadata where it finds zeroes
    return header


def finish_era_metadata(metadata: BlockDevice, header: EraHeader) -> EraHeader:
    """Record that the kernel has made its metadata: from now on they are opened, and never made again."""
    if header.made:
        return header
    header = replace(header, made=True)
    _write(metadata, 0, encode_era_header(header))
    return header


def _needed(device: BlockDevice, region_bytes: int | None) -> int:
    regions = -(-device.size_bytes // (region_bytes or DEFAULT_REGION_BYTES))
    return ERA_START_BYTES + ERA_LEAST_BYTES + regions * BYTES_A_REGION


def _require_same(metadata: BlockDevice, found: EraHeader, device: BlockDevice, region_bytes: int | None) -> None:
    if differing_kinds(found.origin, device.identity()) or found.origin_bytes != device.size_bytes:
        raise UsageError(
            f"the era metadata on {metadata.path} belong to another disk than {device.path}: name its own metadata device"
        )
    if region_bytes not in (None, found.region_bytes):
        raise UsageError(
            f"the era metadata on {metadata.path} have regions of {found.region_bytes} bytes: leave --era-region out; or, to "
            f"begin again, clear the first {2 * ERA_START_BYTES} bytes of {metadata.path}"
        )


def _header_of(metadata: BlockDevice, data: bytes) -> EraHeader:
    try:
        return decode_era_header(data)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"the header of the era metadata on {metadata.path} is damaged ({error}): to begin again, clear the "
            f"first {2 * ERA_START_BYTES} bytes there"
        ) from None


def _read(reader: DirectReader, offset: int, length: int) -> bytes:
    data = aligned_buffer(length)
    reader.read_extent(offset, length, data)
    return bytes(data)


def _is_blank(data: bytes) -> bool:
    return not data.strip(b"\0")


def _write(metadata: BlockDevice, offset: int, data: bytes) -> None:
    try:
        descriptor = os.open(metadata.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            write_all(descriptor, [data], offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(f"{metadata.path} cannot be written: {error.strerror}") from None


assert ERA_START_BYTES % SECTOR_BYTES == 0
