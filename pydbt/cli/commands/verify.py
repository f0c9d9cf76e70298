"""``controller verify``: compare both sides while writes go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from pydbt.cli.locate import ask, ask_primary, locate, named, secondary_option, volume_arguments
from pydbt.cli.once import OnceOption
from pydbt.cli.render import filled_words, verify_words
from pydbt.cli.values import DURATION, RATE
from pydbt.core.errors import DeviceError, Differs, TimedOut
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.seen.advance import Advance
from pydbt.core.seen.headline import unwritable_words
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes

_POLL_S = 0.5
_FIRST_LINE_S = 2.0
_NEXT_LINE_S = 10.0


@click.command()
@volume_arguments
@secondary_option
@click.option("--repair", is_flag=True, help="Exit with 0, not 10, when blocks differed and are copied.")
@click.option("--rate-limit", type=RATE, metavar="BYTES/s", help="Read at most this much, for example 50M/s.")
@click.option("--timeout", type=DURATION, metavar="S", help="Stop waiting after S seconds (exit code 8).")
@click.option("--background", is_flag=True, help="Return at once; `status` shows the progress.")
@click.option("--cancel", cls=OnceOption, is_flag=True, help="End the verification under way.")
def verify(
    source: Path | None,
    state_dir: Path | None,
    secondary: tuple[str, int] | None,
    repair: bool,
    rate_limit: int | None,
    timeout: float | None,
    background: bool,
    cancel: bool,
) -> int:
    """Compare a replica, and copy what differs.

    Digests are compared while writes go on. In mode normal each difference is checked a second time before it is reported;
    with addresses only, an image is compared once. Exit code 10: blocks differed; with `--repair` it is 0.
    """
    place = locate(source, state_dir)
    which = named(secondary)
    entries = meant_of(View(ask_primary(place, "to compare it")), which)
    before = {_name(entry): _last(entry) for entry in entries}
    ask(place, {"command": "verify", "repair": repair, "rate_limit": rate_limit, "cancel": cancel, **which})
    if cancel or background:
        click.echo("the verification was ended" if cancel else "the verification has begun")
        if cancel and any(entry.flag("tainted") for entry in entries):
            click.echo("the volume stays tainted: the comparison begins again in an hour, or with 'controller verify'")
        return 0
    try:
        return _await(place, which, before, None if timeout is None else time.monotonic() + timeout, repair)
    except KeyboardInterrupt:
        print("the verification goes on (status shows it; verify --cancel ends it)", file=sys.stderr)
        raise


def meant_of(report: View, which: dict[str, str]) -> list[View]:
    """The reports of the secondaries that are meant: of the one that is named, or of all."""
    named_one = which.get("secondary")
    return [entry for entry in report.parts("secondaries") if named_one in (None, entry.text("secondary"))]


def _name(entry: View) -> str:
    return entry.text("secondary") or ""


def _last(entry: View) -> View:
    """The last verification with a secondary that ended."""
    return entry.part("verify").part("last")


def rests_for(entry: View) -> str:
    """A sentence for a verification that waits; empty when it runs or is over."""
    mode = entry.text("mode")
    if not entry.part("verify").part("running") or mode in FOLLOWING_MODES:
        return ""
    who = f"waiting for the secondary {entry.text('secondary')}"
    if mode == Mode.REFUSED:
        return f"{who}, which refused: {entry.text('connection_problem')}"
    if mode == Mode.PAUSED:
        return f"{who}, to which replication is paused: 'controller resume' resumes it"
    if entry.flag("connected"):
        waits = f", which waits for {entry.text('waiting_for')}" if entry.text("waiting_for") else ""
        return f"{who} to be in sync again{waits}"
    since = f" since {entry.text('last_in_sync')}" if entry.text("last_in_sync") else ""
    why = f": {entry.text('connection_problem')}" if entry.text("connection_problem") else ""
    return f"{who}, not in sync{since} and not connected{why}"


def _await(place: Path, which: dict[str, str], before: dict[str, View], deadline: float | None, repair: bool) -> int:
    """Show the progress until it has ended everywhere; the exit code."""
    next_line, advance = time.monotonic() + _FIRST_LINE_S, Advance()
    shown: set[tuple[object, ...]] = set()
    while True:
        time.sleep(_POLL_S)
        entries, now = meant_of(View(ask(place, {"command": "status"})), which), time.monotonic()
        for entry in entries:
            # Each reason once: one that comes and goes, such as a target that fails again and again, is told once too.
            problem = entry.text("waiting_for" if entry.flag("connected") else "connection_problem")
            why = _name(entry), entry.text("mode") == Mode.PAUSED, entry.flag("connected"), problem
            if (sentence := rests_for(entry)) and why not in shown:
                shown.add(why)
                print(f"{sentence:<70}", file=sys.stderr, flush=True)
        running = [entry.part("verify") for entry in entries if entry.part("verify").part("running")]
        if not running:
            if any(not _last(entry) or _last(entry) == before.get(_name(entry)) for entry in entries):
                raise TimedOut("the verification was ended before it had looked at everything")
            gone = before.keys() - {_name(entry) for entry in entries}
            if gone and not entries:
                raise TimedOut(_removed(gone))
            code = _tell_all({_name(entry): _last(entry) for entry in entries}, repair)
            _require_writable(entries)
            if gone:
                raise TimedOut(_removed(gone))
            return code
        if deadline is not None and now > deadline:
            raise TimedOut(
                "the verification did not end in time; it continues (see status, or end it with verify --cancel)"
            )
        if now >= next_line or sys.stderr.isatty():
            next_line = now + _NEXT_LINE_S
            end = "\r" if sys.stderr.isatty() else "\n"
            back = advance.look(running[0].part("running"), "another verification")
            words = f"{verify_words(running[0])}; {back}" if back else verify_words(running[0])
            print(f"{words:<70}", file=sys.stderr, end=end, flush=True)


def _removed(gone: Iterable[str]) -> str:
    return f"{', '.join(sorted(gone))}: removed from the volume before it was compared"


def _tell_all(ended: dict[str, View], repair: bool) -> int:
    differ = False
    for name, last in ended.items():
        if len(ended) > 1:
            click.echo(f"{name}:")
        differ |= not _tell(last)
    unreadable = max((last.number("unreadable_bytes") or 0 for last in ended.values()), default=0)
    if unreadable and not differ:
        raise DeviceError(
            f"{format_bytes(unreadable)} of the volume cannot be read, and were not compared: see status for the places"
        )
    if differ and not repair:
        raise Differs(
            "the replica differed from the volume; these blocks are copied, and a later verification shows if it stays so"
        )
    return 0


def _require_writable(entries: list[View]) -> None:
    """What a secondary keeps aside was compared, and is the same; but its target lacks it. Raises DeviceError."""
    words = [words for entry in entries if (words := unwritable_words(entry.part("unwritable")))]
    if words:
        raise DeviceError(f"the secondary has everything, but {words[0]}")


def _tell(last: View) -> bool:
    """Print the result; False when blocks differed."""
    compared, differing = (format_bytes(last.number(name) or 0) for name in ("compared_bytes", "differing_bytes"))
    filled = filled_words(last)
    if not last.number("differing_bytes"):
        click.echo(f"{compared} compared, the same on both sides{filled}")
        return True
    for place in last.parts("places"):
        click.echo(f"{place.whole('length_bytes')} bytes at {place.whole('offset_bytes')} differed")
    click.echo(f"{compared} compared, {differing} differed and are copied{filled}")
    return False
