"""A kernel that is installed and may not run yet: its names and its types, out of its image.

Format: Documentation/arch/x86/boot.rst (the header of a bzImage; what it holds is an ELF file, compressed) and
Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import errno
import lzma
import os
import stat
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from pydbt.core.errors import MachineError
from pydbt.kernel.btf import Btf
from pydbt.kernel.code_cache import Kernel
from pydbt.kernel.limits import reason_in

_BOOT = Path("/boot")
_MODULES = Path("/usr/lib/modules")

_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_PROTOCOL_AT, _OLDEST_PROTOCOL = 0x206, 0x0208  # the first that says where the compressed kernel is
_VERSION_AT, _VERSION_FROM = 0x20E, 0x200
_SETUP_SECTORS_AT, _SETUP_SECTOR_BYTES = 0x1F1, 512
_PAYLOAD_AT = 0x248
_ELF64_LITTLE = b"\x7fELF\x02\x01"
_ELF_TABLE = struct.Struct("<40xQ10xHHH")  # e_shoff; e_shentsize, e_shnum, e_shstrndx (<elf.h>)
_ELF_SECTION = struct.Struct("<I20xQQ")  # sh_name; sh_offset, sh_size
# No kernel is larger: what an image is made of comes from a file that need not be one.
_IMAGE_BYTES_MAX = 256 << 20
_UNPACKED_BYTES_MAX = 1 << 30


def image_of(release: str, boot: Path = _BOOT, modules: Path = _MODULES) -> Path:
    """The image of an installed kernel. MachineError when there is none."""
    places = (boot / f"vmlinuz-{release}", modules / release / "vmlinuz")
    for place in places:
        if place.is_file():
            return place
    raise MachineError(
        f"no kernel {release} is installed here: expected {' or '.join(map(str, places))}; name the image with --image"
    )


def installed_kernel(image: Path) -> tuple[Kernel, Btf]:
    """The names that this kernel will have when it runs, and its types. MachineError for a file that has them not."""
    try:
        content = _read(image)
        kernel = _names(content)
        return kernel, Btf(_section(_unpacked(content), b".BTF"), kernel.release)
    except OSError as error:
        raise MachineError(f"{image} cannot be read: {error.strerror}") from None
    except (
        ValueError, IndexError, OverflowError, struct.error, zlib.error, lzma.LZMAError, zstandard.ZstdError
    ) as error:  # fmt: skip
        raise MachineError(
            f"{image} cannot be used: {error}; expected a kernel for x86-64 with its types (CONFIG_DEBUG_INFO_BTF)"
        ) from None


def _read(image: Path) -> bytes:
    """The whole file. A pipe would be waited for, and a device may have no end: what is no file is an OSError."""
    with open(os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(image))
        content = file.read(_IMAGE_BYTES_MAX + 1)
    if len(content) > _IMAGE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"it is larger than {_IMAGE_BYTES_MAX >> 20} MiB", str(image))
    return content


def _names(content: bytes) -> Kernel:
    if content[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise ValueError("it has no header of a kernel image")
    protocol, version_at = _short(content, _PROTOCOL_AT), _short(content, _VERSION_AT)
    if protocol < _OLDEST_PROTOCOL or not version_at:
        raise ValueError("its header is older than Linux 2.6.26")
    text = content[_VERSION_FROM + version_at :].split(b"\0", 1)[0].decode("ascii", errors="replace")
    release, _, rest = text.partition(" ")
    _, sign, version = rest.partition(" #")  # behind who built it, in brackets (init/version.c)
    if not sign:
        raise ValueError("its header does not name its version")
    return Kernel(release, f"#{version}", "x86_64")


def _short(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 2], "little")


def _unpacked(content: bytes) -> bytes:
    sectors = content[_SETUP_SECTORS_AT] or 4
    offset, length = struct.unpack_from("<II", content, _PAYLOAD_AT)
    start = (1 + sectors) * _SETUP_SECTOR_BYTES + offset
    payload = content[start : start + length]
    if payload.startswith(_ELF64_LITTLE):
        return payload
    for magic, unpack in _UNPACK.items():
        if payload.startswith(magic):
            return unpack(payload)
    raise ValueError(f"its kernel is compressed in a way that pydbt does not know ({payload[:4].hex()})")


def _by_lz4(packed: bytes) -> bytes:
    """The format of `lz4 -l`, which Python's libraries do not read."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(packed[:-_SIZE_BYTES])
        given.seek(0)
        try:
            process = subprocess.Popen(["lz4", "-dc"], stdin=given, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError:
            raise ValueError("it is compressed with lz4, and there is no program lz4 here: install lz4") from None
        with process:
            assert process.stdout is not None
            content = process.stdout.read(_UNPACKED_BYTES_MAX)
            if len(content) == _UNPACKED_BYTES_MAX:
                process.kill()
                return content
        said.seek(0)
        if process.returncode:
            raise ValueError(f"lz4 does not unpack it: {reason_in(said.read().decode(errors='replace'))}")
    return content


# Where a stream ends tells most of them; the size of the kernel follows it.
_SIZE_BYTES = 4
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda packed: zlib.decompressobj(31).decompress(packed, _UNPACKED_BYTES_MAX),
    b"\xfd7zXZ\0": lambda packed: lzma.LZMADecompressor().decompress(packed, _UNPACKED_BYTES_MAX),
    b"\x28\xb5\x2f\xfd": lambda packed: (
        zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(packed).read(_UNPACKED_BYTES_MAX)
    ),
    b"\x02\x21\x4c\x18": _by_lz4,
}


def _section(elf: bytes, name: bytes) -> bytes:
    if not elf.startswith(_ELF64_LITTLE):
        raise ValueError("the compressed part of it is no kernel of 64 bits")
    table, entry_bytes, entries, names_at = _ELF_TABLE.unpack_from(elf)
    sections = [_ELF_SECTION.unpack_from(elf, table + number * entry_bytes) for number in range(entries)]
    if not sections:
        raise ValueError("it does not name its sections")
    names = sections[names_at][1]
    for name_at, offset, size in sections:
        start = names + name_at
        if elf[start : start + len(name) + 1] == name + b"\0":
            return elf[offset : offset + size]
    raise ValueError("it was built without its types")
