"""Runs other programs: with a time limit, and with output that does not depend on the language of the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pydbt.core.errors import DeviceError
from pydbt.posix.tool import run_tool

# LVM waits for locks and for udev; a command that hangs must end nevertheless.
COMMAND_S = 120.0
# The search path for these programs, whatever the caller's PATH is.
COMMAND_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class CommandFailed(DeviceError):
    """A command failed; the message contains its own last line."""


def run_command(*command: str, given: str = "", name: str = "", patience_s: float | None = COMMAND_S) -> str:
    """The output of a command that reads ``given``. What asks this process to end does not end it (``run_tool``).

    CommandFailed in one sentence, which calls the command ``name``. It is killed after ``patience_s``.
    """
    name = name or Path(command[0]).name
    try:
        done = run_tool(command, given, {"PATH": COMMAND_PATH, "LC_ALL": "C"}, patience_s)
    except FileNotFoundError:
        raise CommandFailed(f"{name} is not installed on this machine") from None
    except OSError as error:
        raise CommandFailed(f"{name} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{name} {' '.join(command[1:])} took longer than {patience_s:g} s") from None
    if done.returncode < 0:
        raise CommandFailed(f"{name} was killed by signal {-done.returncode}")
    if done.returncode:
        last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise CommandFailed(f"{name} failed: {last[0]}")
    return done.stdout
