"""``controller verify``: compare both sides while writes go on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask, locate, volume_arguments
from pydbt.cli.render import verify_words
from pydbt.cli.values import RATE, format_bytes
from pydbt.core.errors import Differs, TimedOut

_POLL_S = 0.5
_WORD_S = 10.0


@click.command()
@volume_arguments
@click.option("--repair", is_flag=True, help="Copy what differs; without it, report only.")
@click.option("--rate-limit", type=RATE, metavar="BYTES/s", help="Read no more than this, such as 50M/s.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Stop waiting after S seconds (exit code 8).")
@click.option("--background", is_flag=True, help="Begin it and return; `status` shows how far it is.")
@click.option("--cancel", is_flag=True, help="End the verification under way.")
def verify(
    source: Path | None,
    state_dir: Path | None,
    repair: bool,
    rate_limit: int | None,
    timeout: float | None,
    background: bool,
    cancel: bool,
) -> int:
    """Compare the volume with its replica, by digests, while writes go on.

    Returns 0 when nothing differs or what differed is copied, 10 when blocks differ. A difference is looked at a
    second time before it is called one.
    """
    place = locate(source, state_dir)
    before = _last(ask(place, {"command": "status"}))
    ask(place, {"command": "verify", "repair": repair, "rate_limit": rate_limit, "cancel": cancel})
    if cancel or background:
        click.echo("ended" if cancel else "begun")
        return 0
    return _await(place, before, None if timeout is None else time.monotonic() + timeout)


def _await(place: Path, before: dict[str, Any] | None, deadline: float | None) -> int:
    """Show how far it is until it has ended; the exit code."""
    next_word = time.monotonic() + _WORD_S
    while True:
        time.sleep(_POLL_S)
        status = ask(place, {"command": "status"})
        verification, now = status.get("verify") or {}, time.monotonic()
        if not verification.get("running"):
            last = verification.get("last")
            if last is None or last == before:
                raise TimedOut("the verification was ended before it had looked at everything")
            return _tell(last)
        if deadline is not None and now > deadline:
            raise TimedOut("the verification was not over in time; it goes on (see status, or end it with verify --cancel)")
        if now >= next_word or sys.stderr.isatty():
            next_word = now + _WORD_S
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{verify_words(verification):<70}", file=sys.stderr, end=end, flush=True)


def _tell(last: dict[str, Any]) -> int:
    compared, differing = format_bytes(last["compared_bytes"]), format_bytes(last["differing_bytes"])
    if not last["differing_bytes"]:
        click.echo(f"{compared} compared, the same on both sides")
        return 0
    for place in last["places"]:
        click.echo(f"{place['length_bytes']} bytes at {place['offset_bytes']} {'differed' if last['repaired'] else 'differ'}")
    if last["repaired"]:
        click.echo(f"{compared} compared, {differing} differed and are copied")
        return 0
    click.echo(f"{compared} compared, {differing} differ")
    raise Differs("the replica differs from the volume: run controller verify --repair to copy what differs")


def _last(status: dict[str, Any]) -> dict[str, Any] | None:
    return (status.get("verify") or {}).get("last")
