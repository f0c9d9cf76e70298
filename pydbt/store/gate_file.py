"""What the gate of a volume found last: the file ``gate.json`` in its state directory, for the status and for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own

GATE_FILE_NAME = "gate.json"
GATE_FILE_VERSION = 1


@dataclass(frozen=True, slots=True)
class GateRecord:
    """``outcome`` and ``words`` as of the verdict; ``asked`` is the moment (RFC 3339), ``boot`` the boot in which it was."""

    outcome: str
    words: str
    asked: str
    boot: str


def save_gate(state_dir: Path, record: GateRecord) -> None:
    """StateError when it cannot be written."""
    values = {"version": GATE_FILE_VERSION, **asdict(record)}
    replace_file(state_dir / GATE_FILE_NAME, json.dumps(values).encode() + b"\n")


def load_gate(state_dir: Path, boot: str) -> GateRecord | None:
    """None where the gate was not asked in this boot, or where the file tells nothing: it is for people, and decides nothing."""
    try:
        values = json.loads(read_own(state_dir / GATE_FILE_NAME))
        names = ("outcome", "words", "asked", "boot")
        record = GateRecord(*(str(values[name]) for name in names))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if record.boot == boot else None
