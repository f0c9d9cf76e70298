"""``controller wait``: return when all writes so far are durable."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask, locate, named, secondary_option, volume_arguments
from pydbt.cli.values import DURATION
from pydbt.core.errors import PydbtError, TimedOut, UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.advance import Advance
from pydbt.core.seen.headline import headline
from pydbt.core.seen.view import View
from pydbt.core.transactions.asked_transaction import CURRENT, AskedTransaction

# Beyond the controller's own deadline: it answers then, unless it hangs.
_ANSWER_MARGIN_S = 10.0
# A wait is over at once most times; one that is not says what it waits for.
_FIRST_LINE_S = 2.0
_NEXT_LINE_S = 10.0


@click.command()
@volume_arguments
@secondary_option
@click.option("--any", "anyone", is_flag=True, help="Return when one of several secondaries has all of them.")
@click.option("--no-sync", is_flag=True, help="Do not write out the volume's file systems first.")
@click.option("--transaction", metavar="N|current", help="Wait until this transaction is held.")
@click.option("--mark", metavar="NAME", help="Wait until this mark is held, whatever was written later.")
@click.option("--timeout", type=DURATION, metavar="S", help="Fail after S seconds (exit code 8).")
def wait(
    source: Path | None,
    state_dir: Path | None,
    secondary: tuple[str, int] | None,
    anyone: bool,
    no_sync: bool,
    transaction: str | None,
    mark: str | None,
    timeout: float | None,
) -> int:
    """Wait until all writes so far are durable.

    Returns when everything that was written before this call is durable on the secondary, or on every one of several. File
    systems on the volume are written out first, as `sync -f` does.
    After two seconds, and then every ten, it prints on stderr what it waits for.

    With --transaction N it returns when each of them also holds transaction N of the file system and all before it. N is what
    `controller transactions` prints: 48211 on ext4, cycle:block on XFS; nothing is written out first. With `current` it prints
    the newest transaction whose commit had completed at the call. A program that only flushes commits none: the
    writes are promised, and the number is for people.

    With --mark NAME it returns when each of them holds the newest mark of this name (`controller mark`), whatever was written
    since; nothing is written out first.
    """
    if mark is not None and transaction is not None:
        raise UsageError("--mark and --transaction wait for different things: give one of them")
    if transaction not in (None, CURRENT):
        require_transaction(transaction)
    if secondary and anyone:
        raise UsageError("--any waits for the first of all secondaries, --secondary for a named one: give one of them")
    sync = not no_sync and transaction in (None, CURRENT) and mark is None
    request = {"command": "wait", "timeout": timeout, "any": anyone, "sync": sync, **named(secondary)}
    if transaction is not None:
        request["transaction"] = transaction
    if mark is not None:
        request["mark"] = mark
    place = locate(source, state_dir)
    asked = _Asked(place, request, None if timeout is None else timeout + _ANSWER_MARGIN_S)
    pause, told, advance = _FIRST_LINE_S, False, Advance()
    while not asked.is_over(pause):
        pause, told = _NEXT_LINE_S, _tell(place, advance)
    if asked.timed_out and not told:
        _tell(place, advance, if_behind=True)
    answer = asked.require()
    if sync:
        _tell_left_out(answer)
    if transaction is not None:
        _tell_transaction(answer)
    if mark is not None and "mark" not in answer:
        raise UsageError("the running controller is of an earlier version, which knows no marks")
    return 0


def _tell_transaction(answer: dict[str, Any]) -> None:
    """Print the transaction that is held, and the position that is promised. UsageError from an earlier version."""
    if "transaction" not in answer:
        raise UsageError("the running controller is of an earlier version, which knows no transactions of file systems")
    name, sequence = answer["transaction"], answer["sequence"]
    if name is None:
        why = f": {printable(answer['reason'])}" if answer.get("reason") else ""
        click.echo(f"every write up to sequence {sequence:,} is held; the transaction is unknown{why}")
    else:
        click.echo(f"transaction {printable(name)} is held, with every write up to sequence {sequence:,}")


def _tell_left_out(answer: dict[str, Any]) -> None:
    """Print on stderr what was not written out first."""
    earlier = "the running controller is of an earlier version, which writes nothing out"
    for problem in answer.get("left_out", [earlier]):
        words = (
            f"not written out first: {printable(problem)}; writes that programs have not synced there may be missing"
        )
        print(words, file=sys.stderr, flush=True)


def require_transaction(name: str | None) -> None:
    """UsageError for a text that names no transaction."""
    try:
        AskedTransaction.parse(name or "")
    except ValueError as error:
        raise UsageError(str(error)) from None


class _Asked:
    """The request, in a thread of its own, so that this one may tell how it stands meanwhile. Ctrl-C ends both."""

    def __init__(self, place: Path, request: dict[str, Any], timeout_s: float | None) -> None:
        self._error: Exception | None = None
        self._answer: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._ask, args=(place, request, timeout_s), daemon=True)
        self._thread.start()

    def _ask(self, place: Path, request: dict[str, Any], timeout_s: float | None) -> None:
        try:
            self._answer = ask(place, request, timeout_s)
        except Exception as error:  # whatever it is, it is raised where the command ends
            self._error = error

    def is_over(self, seconds: float) -> bool:
        """Whether it was answered within this time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def timed_out(self) -> bool:
        return isinstance(self._error, PydbtError) and self._error.exit_code == TimedOut.exit_code

    def require(self) -> dict[str, Any]:
        """The answer. Raises its error, if it was one."""
        if self._error is not None:
            raise self._error
        return self._answer


def _tell(place: Path, advance: Advance, *, if_behind: bool = False) -> bool:
    """Print the state of the volume in a line; False when the controller does not tell it just now."""
    try:
        report = View(ask(place, {"command": "status"}))
    except TimedOut as error:
        print(f"waiting: {error}, so it is unknown what for", file=sys.stderr, flush=True)
        return False
    except PydbtError:  # the wait itself ends with its reason
        return False
    if place_in_memory := report.text("writing_out"):
        print(f"waiting: {printable(place_in_memory)} is being written out (sync)", file=sys.stderr, flush=True)
    elif not if_behind or report.text("replica_state") != "up-to-date":
        back = advance.look(report.part("progress"), report.text("mode") or "")
        words = headline(report, datetime.now(UTC))
        print(f"waiting: {words}; {back}" if back else f"waiting: {words}", file=sys.stderr, flush=True)
    return True
