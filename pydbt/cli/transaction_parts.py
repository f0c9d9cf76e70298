"""The parts of the volume that one transaction of the file system changes, and what each is, where the file system can tell."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pydbt.core.errors import UsageError
from pydbt.core.printable import printable
from pydbt.core.units import format_bytes
from pydbt.device.block_owner import BlockOwner, owner_of
from pydbt.device.sysfs import BlockDevice

SHOWN_PARTS = 64
"""Each is asked for; as many as a running controller keeps."""
_ROW = "{:>20} {:>10}  {}"


def print_parts(volume: Path, name: str, told: dict[str, Any], as_json: bool) -> None:
    """``told``: the transactions of the volume, as ``--json`` has them. UsageError where none has this name."""
    found = [one for one in told["transactions"] if one["transaction"] == name]
    if not found:
        last = told["transactions"][-1]["transaction"] if told["transactions"] else None
        known = f"the last of {len(told['transactions'])} that are known is {last}" if last else "none is known"
        raise UsageError(f"{volume} shows no transaction {name}: {known}")
    entry, owner = found[-1], _asker(volume)
    count = entry.get("changed_count", len(entry["changed"]))
    parts = [_part(one, owner(one["offset_bytes"])) for one in entry["changed"][:SHOWN_PARTS]]
    if as_json:
        click.echo(json.dumps({"volume": str(volume), **entry, "changed_count": count, "changed": parts}, indent=2))
        return
    click.echo(_ROW.format("at byte", "length", "content"))
    for part in parts:
        what = f"{part['file']}: {part['what']}" if part["file"] is not None else part["what"]
        click.echo(_ROW.format(f"{part['offset_bytes']:,}", format_bytes(part["length_bytes"]), what))
    more = f", of which the first {len(parts)} are shown" if count > len(parts) else ""
    click.echo(f"transaction {name} ({entry['state']}) on {printable(str(volume))} changes {count:,} parts{more}")


def _part(run: dict[str, int], owner: BlockOwner) -> dict[str, Any]:
    return {**run, "file": owner.file, "what": owner.why}


def _asker(volume: Path) -> Callable[[int], BlockOwner]:
    """Who tells what lies at a place. Of an image nobody does: its file system is not mounted."""
    if not stat.S_ISBLK(volume.stat().st_mode):
        return lambda _: BlockOwner(None, None, "unknown: it is a file, whose file system is not mounted")
    device = BlockDevice.identify(volume)
    return lambda offset_bytes: owner_of(device, offset_bytes)
