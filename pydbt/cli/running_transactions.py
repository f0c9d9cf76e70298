"""The transactions that a running controller has seen, for ``controller transactions``."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask
from pydbt.controller.control import is_answering
from pydbt.controller.registry import state_dir_of
from pydbt.core.errors import PydbtError, UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes
from pydbt.device.sysfs import BlockDevice

_ROW = "{:<14} {:<23} {:>10} {:>10}  {}"
_PAUSE_S = 0.2
_ENDS = ("done", "abandoned")


def running_place(volume: Path) -> Path | None:
    """The state directory of the primary that replicates this device now; None without one."""
    try:
        if not stat.S_ISBLK(os.stat(volume).st_mode):
            return None
        found = state_dir_of(BlockDevice.identify(volume))
    except (OSError, PydbtError):
        return None
    return found if found is not None and is_answering(found) else None


def told_by_controller(place: Path, after: int = 0) -> dict[str, Any]:
    """Its answer about the transactions behind an ordinal, as far as they are kept."""
    answer = ask(place, {"command": "transactions", "after": after})
    if "transactions" not in answer:
        raise UsageError("the running controller is of an earlier version, which knows no transactions of file systems")
    return answer


def list_transactions(place: Path, volume: Path, as_json: bool) -> int:
    """Print those that are kept, the oldest first."""
    answer = told_by_controller(place)
    if as_json:
        click.echo(json.dumps({"volume": str(volume), **answer}, indent=2))
        return 0
    click.echo(_ROW.format("transaction", "committed (UTC)", "in the log", "changes", "state"))
    for entry in View(answer).parts("transactions"):
        click.echo(_line(entry))
    click.echo(_last_words(View(answer), volume))
    return 0


def follow_transactions(place: Path, as_json: bool) -> int:
    """Print a line for each as it is done or abandoned, until the controller ends or Ctrl-C."""
    ended = max(
        (one["ordinal"] for one in told_by_controller(place)["transactions"] if one["state"] in _ENDS), default=0
    )
    told, is_first = "", True
    while True:
        answer = told_by_controller(place, ended)
        unseen = 0 if is_first else answer.get("oldest_kept", 0) - 1 - ended
        is_first = False
        if unseen > 0:
            ended += unseen
            words = "more ended at once than the controller keeps"
            click.echo(f"{unseen:,} transaction{'s' * (unseen != 1)} were not seen: {words}", err=True)
        if (reason := answer["reason"]) != told and not as_json:
            told = reason
            if reason:
                click.echo(f"a transaction is a write request: {printable(reason)}", err=True)
        for entry in answer["transactions"]:
            if entry["state"] not in _ENDS:
                break  # in their order: the next look has it
            ended = entry["ordinal"]
            click.echo(json.dumps(entry) if as_json else _line(View(entry)))
        time.sleep(_PAUSE_S)


def _line(entry: View) -> str:
    reason = entry.text("reason")
    return _ROW.format(
        printable(entry.text("transaction") or ""),
        printable((entry.text("committed") or "-").replace("T", " ").removesuffix("Z"))[:23],
        format_bytes(entry.number("log_bytes") or 0),
        f"{entry.whole('changed_count') or 0:,} runs",
        printable(entry.text("state") or "") + (f": {printable(reason)}" if reason else ""),
    )


def _last_words(answer: View, volume: Path) -> str:
    about = f"{answer.text('file_system') or 'no known file system'} on {printable(str(volume))}"
    if reason := answer.text("reason"):
        return f"{about}: a transaction is a write request now: {printable(reason)}"
    done = [one for one in answer.parts("transactions") if one.text("state") == "done"]
    if not done:
        return f"{about}: which transaction every secondary holds is unknown"
    return f"{about}: every secondary is complete to transaction {printable(done[-1].text('transaction') or '')}"
