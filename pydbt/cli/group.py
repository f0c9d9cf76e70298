"""Every command of the program, and one command line carried out."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import click

from pydbt.cli.config import DEFAULT_FILE, load_defaults, read_settings
from pydbt.cli.explain import EXIT_CODES, debug_wanted, report, unknown_to_plugins
from pydbt.cli.help_text import HelpText
from pydbt.cli.logs import configure_logging
from pydbt.cli.output import ReaderGone, output_of_commands
from pydbt.cli.program import PIPE_CLOSED, Stopped, program_name, signals_as_usual
from pydbt.cli.responsive import finish_writing
from pydbt.cli.values import PATH
from pydbt.core.configured.problems import did_you_mean
from pydbt.core.errors import UsageError
from pydbt.version import VERSION

_COMMANDS = (
    "run", "secondary", "secondaries", "status", "events", "check", "wait", "mark", "verify", "switchover", "promote", "demote",
    "invalidate", "pki", "pause", "resume", "up", "down", "arm", "disarm", "gate", "layer", "protect", "hold", "cluster",
    "transactions", "trace", "configcheck", "dashboard", "top", "compile", "help",
)  # fmt: skip
_MODULES = {"resume": "pause", "disarm": "arm"}
# Functions whose names would hide Python's own.
_FUNCTIONS = {"help": "show_help", "compile": "compile_for_kernel"}
# They read only, and are asked by monitoring: they are quick, and work beside a table that another command cannot read.
_QUICK = ("status", "events", "check")
# It ends as the plug-ins of monitoring do, whatever the error is.
_PLUGIN = "check"
# The others run until they are stopped, are quick, or tell by themselves what they wait for.
_MAY_TAKE_LONG = (
    "mark", "secondaries", "switchover", "promote", "demote", "invalidate", "pki", "pause", "resume", "up", "down", "arm",
    "disarm", "gate", "layer", "protect", "transactions", "configcheck", "compile",
)  # fmt: skip
# It reads the file itself, to tell everything that is wrong.
_TOLERANT = "configcheck"

click.Context.formatter_class = HelpText  # of every command, also of one that is loaded later


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name. Each is loaded when it is asked for: most command lines need one of them."""

    def __init__(self) -> None:
        self._more: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._more:
            if name not in _COMMANDS:
                raise KeyError(name)
            module = importlib.import_module(f"pydbt.cli.commands.{_MODULES.get(name, name)}")
            self._more[name] = getattr(module, _FUNCTIONS.get(name, name))
        return self._more[name]

    def __contains__(self, name: object) -> bool:
        return name in _COMMANDS or name in self._more

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._more[name] = command

    def __delitem__(self, name: str) -> None:
        del self._more[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*_COMMANDS, *(name for name in self._more if name not in _COMMANDS)))

    def __len__(self) -> int:
        return len(tuple(iter(self)))


class _Program(click.Group):
    """The program itself: it guesses a mistyped command, and names the file that a wrong setting stands in.

    ``asked``: the command of the last command line, as far as it was understood.
    """

    asked: str | None = None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], list(self.commands))}")
        found = super().resolve_command(ctx, args)
        self.asked = found[0]
        signals_as_usual()
        return found

    def invoke(self, ctx: click.Context) -> Any:
        kept = ctx.__dict__  # click 8.2 renamed the first of them
        typed = [*kept.get("_protected_args", kept.get("protected_args", ())), *ctx.args]
        try:
            with _telling(typed):
                return super().invoke(ctx)
        except UsageError as error:
            settings = ctx.find_root().obj
            origin = settings.origin_of(typed[0], str(error), typed) if settings is not None and typed else ""
            if not origin or str(error).startswith(origin):
                raise
            raise UsageError(f"{origin}: {error}") from None


def _telling(typed: list[str]) -> contextlib.AbstractContextManager[None]:
    """A command that may take long says that it is still at work; where it knows more, it says that."""
    if not typed or typed[0] not in _MAY_TAKE_LONG:
        return contextlib.nullcontext()
    from pydbt.controller.at_work import doing

    words = " ".join([program_name(), *itertools.takewhile(lambda word: word.isalpha(), typed[:2])])
    return doing(f"still at work: {words}")


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"{program_name()} {VERSION}")
    context.exit()


@click.group(
    cls=_Program,
    commands=_Commands(),
    epilog=EXIT_CODES,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print the version."
)
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
    """Replicate a live block device; after a failure, copy only the blocks that differ.

    SOURCE is the replicated device of a primary, and TARGET the device or image file of a replica. In the place of either, and of
    `--state`, stands the NAME of a volume or replica in /etc/pydbt/volumes.
    """
    configure_logging(debug or debug_wanted([]))
    if context.invoked_subcommand == _TOLERANT:
        return
    settings = context.obj = read_settings(config)
    if settings is not None:
        asked = context.invoked_subcommand
        only = asked if asked in _QUICK else None
        context.default_map = load_defaults(cli, settings, only)


def execute(arguments: list[str]) -> int:
    """Carry out one command line; its exit code. Raises nothing."""
    with output_of_commands():
        cli.asked = None
        try:
            outcome = cli.main(arguments, prog_name=program_name(), standalone_mode=False)
            if sys.stdout is not None:  # it was closed at the start
                sys.stdout.flush()
            return outcome if isinstance(outcome, int) else 0
        except click.exceptions.Exit as done:
            return done.exit_code
        except ReaderGone:
            return PIPE_CLOSED
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if cli.asked == _PLUGIN and isinstance(error, Exception):
                return unknown_to_plugins(error)
            return report(error, debug_wanted(arguments))
        finally:
            finish_writing()
