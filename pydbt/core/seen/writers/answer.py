"""The answer to *who writes*, for pages and people's programs: plain data, and no text in it that could hurt a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydbt.core.printable import printable
from pydbt.core.seen.writers.groups import control_group_of
from pydbt.core.seen.writers.ledger import Ledger, Row
from pydbt.core.seen.writers.reading import File, Kind, Names, Process, Writer
from pydbt.core.seen.writers.sums import NO_FILE, WriterSums

SHOWN_ROWS = 50
"""Of each view; the others are one row."""
TEXT_MAX = 1024
"""Characters of a name. A path may have 4,095 bytes, and each may become four characters."""
# The kernel's number of the root of the control groups (version 2): also where no process can see them.
_ROOT_GROUP, _ROOT_GROUP_NAME = 1, "the root control group"

_SPECIAL = {
    Kind.JOURNAL: ("journal", "the file system's journal"),
    Kind.METADATA: ("metadata", "the file system's metadata"),
    Kind.BEFORE: ("before", "dirtied before this was watched"),
    Kind.UNKNOWN: ("unknown", "unknown"),
}


def shown_name(name: bytes | str) -> str:
    """One printable line: what is no text, or moves a cursor, is escaped; the middle of a long one is left out."""
    text = printable(name.decode(errors="backslashreplace") if isinstance(name, bytes) else name)
    if len(text) <= TEXT_MAX:
        return text
    half = (TEXT_MAX - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def views(sums: WriterSums, names: Names, rows_max: int = SHOWN_ROWS) -> dict[str, Any]:
    """``processes``, ``groups`` and ``files``: rows, of which those of each add up to ``captured_bytes`` (``written_bytes``).

    ``counted_bytes`` are the capture's own: a little more than the rows have while writes are on their way to them.
    """
    return {
        "captured_bytes": sums.captured_bytes,
        "counted_bytes": sums.counted_bytes,
        "excess_bytes": sums.excess_bytes,
        "processes": _rows(
            sums.by_process, sums.unseen_bytes, rows_max, lambda one: _process(sums.process(one), one, names)
        ),
        "groups": _rows(sums.by_group, sums.unseen_bytes, rows_max, lambda one: _group(one, names)),
        "files": _rows(sums.by_file, sums.unseen_bytes, rows_max, lambda one: _file(one, names)),
        "lost": {"rows": sums.lost_rows, "writers": sums.lost_writers},
    }


def _rows(
    ledger: Ledger[Any], unseen_bytes: int, rows_max: int, told: Callable[[Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = ledger.rows(rows_max)
    if unseen_bytes and not any(row.subject is Kind.UNKNOWN for row in rows):
        rows.append(Row(Kind.UNKNOWN, 0, 0, 0, 0.0, 0.0))
    made = [_told(row, told) | _figures(row) for row in rows]
    for one in made:
        if one["kind"] == "unknown":
            one["written_bytes"] += unseen_bytes
    return made


def _told(row: Row[Any], told: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    if row.subject is None:
        return {"kind": "others", "name": "all others"}
    if isinstance(row.subject, Kind):
        kind, name = _SPECIAL[row.subject]
        return {"kind": kind, "name": name}
    return told(row.subject)


def _figures(row: Row[Any]) -> dict[str, Any]:
    return {
        "dirtied_bytes": row.dirtied,
        "written_bytes": row.written,
        "dirtied_rate_bytes": round(row.dirtied_rate),
        "written_rate_bytes": round(row.written_rate),
        "out_of_normal_bytes": row.out_of_normal,
    }


def _process(writer: Writer | None, subject: Process, names: Names) -> dict[str, Any]:
    if writer is None:
        return {"kind": "process", "name": "unknown", "process": subject.process}
    group = group_name(writer.cgroup, names)
    return {
        "kind": "process",
        "name": process_name(writer),
        "process": writer.process,
        "started_ns": writer.started_ns,
        "user": writer.user,
        "user_name": None if (user := names.users.get(writer.user)) is None else shown_name(user),
        "group": group["name"],
    }


def process_name(writer: Writer) -> str:
    """A thread of the kernel is in brackets, as ps(1) shows it."""
    name = shown_name(writer.name.split(b"\0", 1)[0])
    return f"[{name}]" if writer.is_kernel else name


def group_name(number: int, names: Names) -> dict[str, Any]:
    """What a control group is called. ``path`` None: it is gone, or in a hierarchy that cannot be seen here."""
    path = b"/" if number == _ROOT_GROUP else names.groups.get(number)
    if path is None:
        return {"name": f"control group {number}", "path": None, "unit": "", "container": ""}
    group = control_group_of(path.decode(errors="backslashreplace"))
    return {
        "name": _ROOT_GROUP_NAME if path == b"/" else shown_name(group.label),
        "path": shown_name(path),
        "unit": shown_name(group.unit),
        "container": shown_name(group.container),
    }


def _group(number: int, names: Names) -> dict[str, Any]:
    return {"kind": "group", **group_name(number, names), "cgroup": number}


def _file(subject: Any, names: Names) -> dict[str, Any]:
    if subject is NO_FILE or not isinstance(subject, File):
        return {"kind": "no_file", "name": "no file: the device itself, or discards"}
    path = names.files.get(subject)
    device = f"{subject.device >> 20}:{subject.device & 0xFFFFF}"
    if not subject.inode:
        return {"kind": "device", "name": f"the block device {device}", "path": None, "inode": 0, "device": device}
    return {
        "kind": "file",
        "name": shown_name(path) if path is not None else f"inode {subject.inode}",
        "path": None if path is None else shown_name(path),
        "inode": subject.inode,
        "device": device,
    }
