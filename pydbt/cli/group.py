"""Every command of the program, and one command line carried out."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from pydbt.cli.commands.demote import demote
from pydbt.cli.commands.down import down
from pydbt.cli.commands.invalidate import invalidate
from pydbt.cli.commands.layer import layer
from pydbt.cli.commands.pause import pause, resume
from pydbt.cli.commands.pki import pki
from pydbt.cli.commands.promote import promote
from pydbt.cli.commands.run import run
from pydbt.cli.commands.secondaries import secondaries
from pydbt.cli.commands.secondary import secondary
from pydbt.cli.commands.status import status
from pydbt.cli.commands.verify import verify
from pydbt.cli.commands.wait import wait
from pydbt.cli.config import DEFAULT_FILE, load_defaults
from pydbt.cli.explain import EXIT_CODES, debug_wanted, report
from pydbt.cli.logs import configure_logging
from pydbt.cli.program import program_name
from pydbt.cli.values import PATH

_PIPE_CLOSED = 141  # 128 + SIGPIPE, as in a shell


def _version() -> str:
    try:
        return version("pydbt")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "unknown"


@click.group(
    epilog=EXIT_CODES,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_version(), message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Log everything, with a traceback for errors (or set PYDBT_DEBUG=1).")
@click.option(
    "--config",
    type=PATH,
    envvar="PYDBT_CONFIG",
    metavar="FILE",
    help=f"Defaults for every command; without it {DEFAULT_FILE}, if that exists.",
)
@click.pass_context
def cli(context: click.Context, debug: bool, config: Path | None) -> None:
    """Replicate a live block device; after a failure, copy only the blocks that differ."""
    configure_logging(debug or debug_wanted([]))
    context.default_map = load_defaults(cli, config)


for _command in (
    run, secondary, secondaries, status, wait, verify, promote, demote, invalidate, pki, pause, resume, down, layer,
):  # fmt: skip
    cli.add_command(_command)


def execute(arguments: list[str]) -> int:
    """Carry out one command line; its exit code. Raises nothing."""
    try:
        outcome = cli.main(arguments, prog_name=program_name(), standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # The reader of the output went away; the interpreter must not fail on it again at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        return report(error, debug_wanted(arguments))
