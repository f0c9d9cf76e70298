"""``scripts/demo``: its options, its end, and its exit code (0: identical, 1: not, or a step failed)."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import click

from pydbt.cli.explain import explain
from pydbt.cli.values import PATH, SIZE
from pydbt.core.errors import PydbtError, UsageError
from pydbt.core.units import format_bytes
from pydbt.device.checks import require_root
from tests.lab.demo import scratch as scratches
from tests.lab.demo.controllers import PRIMARY, SECONDARY, log_of
from tests.lab.demo.play import LAST_WORK_S, LEAST_BYTES, NORMAL_WORK_S, Choice, Play, how_to_play
from tests.lab.demo.scratch import Scratch
from tests.lab.demo.summary import Report, print_report
from tests.lab.patience import Interrupted, Patience
from tests.lab.programs import last_words

_BEGIN = time.monotonic()


def _say(text: str) -> None:
    """One line of progress. Interrupted when nobody reads it any more."""
    try:
        print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still said goes nowhere
        raise Interrupted("nobody reads the output any more") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--fs", "filesystem", type=click.Choice(sorted(LEAST_BYTES)), default="ext4", show_default=True)
@click.option("--size", "size_bytes", type=SIZE, default="1G", show_default=True, help="The volume's size.")
@click.option(
    "--outage",
    "outage_seconds",
    type=click.FloatRange(0, 86_400),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="How long the link is down at least.",
)
@click.option("--block-size", "block_bytes", type=SIZE, help="What is tracked as one, 512 to 64K; 4K otherwise.")
@click.option("--keep", is_flag=True, help="Leave it running to play with, and print how.")
@click.option("--stop", "kept", type=PATH, metavar="DIR", help="End a demo that was kept, and remove it.")
def main(
    filesystem: str, size_bytes: int, outage_seconds: float, block_bytes: int | None, keep: bool, kept: Path | None
) -> None:
    """Replicate a volume of this demo's own over a cable of its own, cut the cable under load, mend it, and compare.

    It takes about a minute, changes nothing on this machine, and leaves nothing behind, also after Ctrl-C.
    """
    patience = Patience()
    patience.listen()
    try:
        require_root("scripts/demo")
        if kept is not None:
            scratch = scratches.find(kept)
            patience.ignore()
            code = _remove(scratch)
            _say(
                f"removed {scratch.folder} and everything that belonged to it"
                if not code
                else "not all could be removed"
            )
            sys.exit(code)
        least = LEAST_BYTES[filesystem]
        if size_bytes < least or size_bytes % 4096:
            raise UsageError(
                f"--size {size_bytes} is no multiple of 4096 from {format_bytes(least)} up, as {filesystem} needs"
            )
        choice = Choice(filesystem, size_bytes, outage_seconds, block_bytes)
        scratch = scratches.make(size_bytes)
    except PydbtError as error:
        sys.exit(_complain(error))
    sys.exit(_play(scratch, choice, patience, keep))


def _play(scratch: Scratch, choice: Choice, patience: Patience, keep: bool) -> int:
    """Carry the demo out and take it away again; its exit code."""
    code, kept, failed = 1, False, False
    try:
        play = Play(scratch, choice, patience, _say)
        report = _steps(play, scratch, keep)
        print_report(report)
        code, failed = (0, False) if report.identical else (1, True)
        if keep and report.identical:
            print(how_to_play(scratch, play.device), flush=True)
            kept = True
    except Interrupted:
        code = Interrupted.exit_code
        with contextlib.suppress(Interrupted):
            _say("interrupted: taking everything away")
    except Exception as error:
        failed = True
        _complain(error)
    finally:
        patience.ignore()
        if not kept:
            code = max(code, _remove(scratch, keep_logs=failed))
    with contextlib.suppress(Interrupted):
        if failed:
            _show_logs(scratch)
            _say(f"removed everything but the logs in {scratch.folder}")
        elif not kept:
            _say("removed everything that the demo made")
    return code


def _complain(error: BaseException) -> int:
    """One sentence on stderr; the exit code."""
    sentence, code = explain(error)
    print(f"scripts/demo: {sentence}", file=sys.stderr, flush=True)
    return code


def _steps(play: Play, scratch: Scratch, keep: bool) -> Report:
    _say(f"working in {scratch.folder}")
    play.make_volume()
    play.start()
    play.work_normally(NORMAL_WORK_S)
    outage = play.outage()
    play.work_normally(LAST_WORK_S)
    return play.look(outage) if keep else play.stop(outage)


def _show_logs(scratch: Scratch) -> None:
    for role in (SECONDARY, PRIMARY):
        log = log_of(scratch.folder, role)
        if log.exists():
            print(f"--- the end of {log}", *last_words(log), sep="\n", file=sys.stderr, flush=True)


def _remove(scratch: Scratch, *, keep_logs: bool = False) -> int:
    problems = scratches.remove(scratch, keep_logs=keep_logs)
    for problem in problems:
        print(f"scripts/demo: {problem}", file=sys.stderr, flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    main(prog_name="scripts/demo")
