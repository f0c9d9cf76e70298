"""A mark: a name that a person or program gives to one place in the order of writes.

It takes a sequence number of its own, behind all updates before it and ahead of all later ones, and the acknowledgement of that
number says that the secondary holds it durably. The same bytes are the body of the frame and of the journal's record.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.frame_checks import check_u64
from pydbt.core.protocol.layout import Layout
from pydbt.core.protocol.stream_times import check_offset
from pydbt.core.units import Buffer

MAX_NAME_BYTES = 200
_FLAGS = 3

MARK = Layout(
    sequence="Q", number="Q", set_ns="Q", clock_offset_ns="q", uncertain_bytes="Q", flags="H", name_bytes="H", reserved="I"
)  # fmt: skip
MAX_MARK_BYTES = MARK.size + MAX_NAME_BYTES


@dataclass(frozen=True, slots=True)
class NamedMark:
    """A replica that has every update before ``sequence``, and none behind it, is the volume as of this mark.

    ``number`` names it: it rises from mark to mark of a volume, and is the same for every secondary. ``set_ns``,
    ``clock_offset_ns``: as of ``StreamTimes``. ``synced``: file systems on the volume were written out first; ``partly``: but not
    all of what could be. ``uncertain_bytes``: blocks of which a replica may have another outcome of a race there than the volume;
    0: it is the volume, bit for bit, but for writes that were in flight.
    """

    sequence: int
    number: int
    name: str
    set_ns: int
    clock_offset_ns: int
    synced: bool
    partly: bool = False
    uncertain_bytes: int = 0

    def __post_init__(self) -> None:
        for field in ("sequence", "number", "set_ns", "uncertain_bytes"):
            check_u64(field, getattr(self, field))
        if not self.sequence or not self.number:
            raise ValueError("sequences and marks are numbered from 1")
        check_offset(self.clock_offset_ns)
        check_name(self.name)

    def to_bytes(self) -> bytes:
        """The body of a MARK frame and of a MARK record."""
        name = self.name.encode()
        flags = self.synced | self.partly << 1
        numbers = self.sequence, self.number, self.set_ns, self.clock_offset_ns, self.uncertain_bytes
        return MARK.pack(*numbers, flags, len(name), 0) + name

    @classmethod
    def from_bytes(cls, body: Buffer) -> NamedMark:
        """Raises ValueError, or struct.error, for what is none."""
        sequence, number, set_ns, offset_ns, uncertain, flags, length, reserved = MARK.unpack_from(body)
        name = bytes(body[MARK.size :])
        if len(name) != length or flags & ~_FLAGS or reserved:
            raise ValueError("a mark has a name of another length, unknown flags, or a reserved field that is not zero")
        return cls(sequence, number, name.decode(), set_ns, offset_ns, bool(flags & 1), bool(flags & 2), uncertain)


def check_name(name: object) -> None:
    """Raises ValueError, with a sentence for people, for what is no name of a mark."""
    if type(name) is not str or not name or name != name.strip() or not name.isprintable():
        raise ValueError(
            f"a mark has a name of printable characters that neither begins nor ends with a space, not {name!r:.80}"
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name!r:.80} is not a text") from None
    if size > MAX_NAME_BYTES:
        raise ValueError(f"the name of a mark has at most {MAX_NAME_BYTES} bytes, and {name!r:.80} has {size}")
