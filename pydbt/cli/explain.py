"""Errors for people: one sentence on stderr and an exit code; a traceback only with --debug."""

from __future__ import annotations

import errno
import os
import sys

import click

from pydbt.cli.logs import error_prefix, traceback_text
from pydbt.cli.program import INTERRUPTED, Stopped, program_name
from pydbt.core.errors import MachineError, PydbtError, UsageError
from pydbt.core.printable import printable

BUG = 1
_NO_NAMES = {
    errno.ENAMETOOLONG: "no file has a name this long (at most 255 bytes, and 4095 with its folders): name another",
    errno.ELOOP: "it leads through too many symbolic links, perhaps in a circle: name another path",
}
_SHOWN_CHARACTERS = 60
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

EXIT_CODES = """Exit codes:

\b
  0  done
  1  a fault of this program
  2  wrong usage: an option, a device, or their combination
  3  missing on this machine: root, BTF, kernel headers, or bpffs
  4  already in use: a volume, a target, a port, or a state directory
  5  the other machine is unreachable, refused, or uses another protocol
  6  a disk failed, disappeared, or changed its size
  7  a state file or journal is damaged, foreign, or not writable
  8  a timeout
  9  no controller is running
 10  a verification found blocks that differ
 11  the output cannot be written
 12  the volume must not be mounted here: another side is the volume now
130  interrupted
141  the reader of the output went away
143  ended by SIGTERM (a service ends with 0)"""


def explain(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code for an error that ended a command."""
    match error:
        case PydbtError():
            return _one_line(str(error)), error.exit_code
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else program_name()
            sentence = _one_line(error.format_message()).rstrip(".")
            return f"{sentence} (see {where} --help)", UsageError.exit_code
        case click.ClickException():
            return _one_line(error.format_message()), UsageError.exit_code
        case Stopped():
            return "stopped before replication had begun; nothing is left behind", 0
        case KeyboardInterrupt() | click.Abort():
            return "interrupted", INTERRUPTED
        case PermissionError() if os.geteuid() != 0:
            return (
                f"{error.filename or 'something'} may not be used: run this as root, with sudo",
                MachineError.exit_code,
            )
        case MemoryError():
            return (
                "this program may have no more memory: see 'ulimit -v', and the control group",
                MachineError.exit_code,
            )
        case OSError() if error.errno in _NO_NAMES:
            name, words = str(error.filename or "a name"), _NO_NAMES[error.errno]
            shown = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."
            return f"{_one_line(shown)}: {words}", UsageError.exit_code
        case OSError() if error.errno in _LIMITS:
            return f"{_one_line(str(error))}: a limit is reached (see 'ulimit -a')", MachineError.exit_code
        case OSError() if not os.path.exists("/proc/self"):
            return "/proc is not mounted, and this program needs it: mount it", MachineError.exit_code
        case FileNotFoundError() if _folder_is_gone():
            return "the current directory was removed: change to another one", UsageError.exit_code
        case _:
            words = _one_line(str(error)) or "no message"
            return f"{type(error).__name__}: {words} (this is a bug; run it with --debug to see where)", BUG


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def report(error: BaseException, debug: bool) -> int:
    """Print on stderr why a command ended, and return its exit code."""
    sentence, exit_code = explain(error)
    if debug:
        click.echo(traceback_text(error), err=True)
    click.echo(f"{error_prefix(sys.stderr)}{program_name()}: {sentence}", err=True)
    return exit_code


def unknown_to_plugins(error: Exception) -> int:
    """Print an error as the state UNKNOWN of a monitoring plug-in, and return its exit code."""
    from pydbt.core.seen.plugin import PluginState, unknown_line

    click.echo(unknown_line(explain(error)[0]))
    return int(PluginState.UNKNOWN)


def debug_wanted(arguments: list[str]) -> bool:
    """Whether tracebacks are wanted, also when the arguments themselves are wrong."""
    return "--debug" in arguments or os.environ.get("PYDBT_DEBUG", "") not in ("", "0")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
