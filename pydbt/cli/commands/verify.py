"""``controller verify``: compare both sides while writes go on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask, ask_primary, locate, named, secondary_option, volume_arguments
from pydbt.cli.render import verify_words
from pydbt.cli.values import RATE, SECONDS, format_bytes
from pydbt.cli.view import View
from pydbt.core.errors import Differs, TimedOut
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode

_POLL_S = 0.5
_WORD_S = 10.0


@click.command()
@volume_arguments
@secondary_option
@click.option("--repair", is_flag=True, help="Copy blocks that differ; without it they are only reported.")
@click.option("--rate-limit", type=RATE, metavar="BYTES/s", help="Read at most this much, for example 50M/s.")
@click.option("--timeout", type=SECONDS, metavar="S", help="Stop waiting after S seconds (exit code 8).")
@click.option("--background", is_flag=True, help="Return at once; `status` shows the progress.")
@click.option("--cancel", is_flag=True, help="End the verification under way.")
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
    """Compare a volume with its replica.

    Digests are compared while writes go on. Every difference is checked a second time before it is reported. Exit code
    0: nothing differs, or all differences were copied; 10: blocks differ.
    """
    place = locate(source, state_dir)
    words = named(secondary)
    reports = _reports(ask_primary(place, "to compare it"), words)
    before = {name: report.get("last") for name, report in reports.items()}
    ask(place, {"command": "verify", "repair": repair, "rate_limit": rate_limit, "cancel": cancel, **words})
    if cancel or background:
        click.echo("ended" if cancel else "begun")
        return 0
    return _await(place, words, before, None if timeout is None else time.monotonic() + timeout)


def _reports(status: dict[str, Any], words: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The reports of verifications by secondary: of the one that is meant, or of all."""
    return {entry["secondary"]: entry["verify"] for entry in _entries(status, words)}


def _entries(status: dict[str, Any], words: dict[str, str]) -> list[dict[str, Any]]:
    meant = words.get("secondary")
    return [entry for entry in status["secondaries"] if meant in (None, entry["secondary"])]


def rests_for(entry: dict[str, Any]) -> str:
    """A sentence for a verification that waits; empty when it runs or is over."""
    if not entry["verify"].get("running") or entry["mode"] in FOLLOWING_MODES:
        return ""
    who = f"waiting for the secondary {entry['secondary']}"
    if entry["mode"] == Mode.PAUSED:
        return f"{who}, to which replication is paused: 'controller resume' goes on"
    if entry["connected"]:
        return f"{who} to be in sync again"
    since = f" since {entry['last_in_sync']}" if entry.get("last_in_sync") else ""
    why = f": {entry['connection_problem']}" if entry.get("connection_problem") else ""
    return f"{who}, not in sync{since} and not connected{why}"


def _await(place: Path, words: dict[str, str], before: dict[str, Any], deadline: float | None) -> int:
    """Show the progress until it has ended everywhere; the exit code."""
    next_word = time.monotonic() + _WORD_S
    said: set[tuple[str, bool, bool]] = set()
    while True:
        time.sleep(_POLL_S)
        status, now = ask(place, {"command": "status"}), time.monotonic()
        reports = _reports(status, words)
        for entry in _entries(status, words):
            what = entry["secondary"], entry["mode"] == Mode.PAUSED, entry["connected"]
            if (sentence := rests_for(entry)) and what not in said:
                said.add(what)
                print(f"{sentence:<70}", file=sys.stderr, flush=True)
        running = [report for report in reports.values() if report.get("running")]
        if not running:
            ended: dict[str, dict[str, Any]] = {}
            for name, report in reports.items():
                last = report.get("last")
                if last is None or last == before.get(name):
                    raise TimedOut("the verification was ended before it had looked at everything")
                ended[name] = last
            return _tell_all(ended)
        if deadline is not None and now > deadline:
            raise TimedOut(
                "the verification did not end in time; it continues (see status, or end it with verify --cancel)"
            )
        if now >= next_word or sys.stderr.isatty():
            next_word = now + _WORD_S
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{verify_words(View(running[0])):<70}", file=sys.stderr, end=end, flush=True)


def _tell_all(ended: dict[str, dict[str, Any]]) -> int:
    differ = False
    for name, last in ended.items():
        if len(ended) > 1:
            click.echo(f"{name}:")
        differ |= not _tell(last)
    if differ:
        raise Differs("the replica differs from the volume: run controller verify --repair to copy what differs")
    return 0


def _tell(last: dict[str, Any]) -> bool:
    """Print the result; False when blocks still differ."""
    compared, differing = format_bytes(last["compared_bytes"]), format_bytes(last["differing_bytes"])
    if not last["differing_bytes"]:
        click.echo(f"{compared} compared, the same on both sides")
        return True
    for place in last["places"]:
        click.echo(
            f"{place['length_bytes']} bytes at {place['offset_bytes']} {'differed' if last['repaired'] else 'differ'}"
        )
    if last["repaired"]:
        click.echo(f"{compared} compared, {differing} differed and are copied")
        return True
    click.echo(f"{compared} compared, {differing} differ")
    return False
