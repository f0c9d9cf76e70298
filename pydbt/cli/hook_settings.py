"""The table ``[hooks]`` of a settings file: which program is run for which event, and how long things may take."""

from __future__ import annotations

from typing import Any

import click

from pydbt.cli.config import HOOKS_TABLE, Settings, Wrong
from pydbt.cli.values import DURATION
from pydbt.core.configured.problems import did_you_mean
from pydbt.core.errors import UsageError
from pydbt.core.seen.event_names import ANY, NAMES
from pydbt.core.seen.hooks import (
    DEFAULT_HOOK_TIMEOUT_S,
    HOOK_TIMEOUT,
    HOOK_TIMES,
    OUT_OF_SYNC_AFTER,
    Command,
    Hooks,
)
from pydbt.core.seen.lateness import DEFAULT_LATE_AFTER_S

_EXAMPLE = '["/usr/local/sbin/page", "urgent"]'
LONGEST_HOOK_S = 3600.0
"""Hooks of a volume run one after another: a longer one would hold the others up."""
_LISTS_MAX = 100


def read_hooks(table: Any) -> tuple[Hooks, list[Wrong]]:
    """The hooks of a table, and every setting in it that is wrong."""
    if not isinstance(table, dict):
        return Hooks(), [
            Wrong(HOOKS_TABLE, f"{HOOKS_TABLE} is no table", f"expected a line [{HOOKS_TABLE}] with its settings below")
        ]
    commands: list[tuple[str, Command]] = []
    times = {HOOK_TIMEOUT: DEFAULT_HOOK_TIMEOUT_S, OUT_OF_SYNC_AFTER: DEFAULT_LATE_AFTER_S}
    wrong = []
    for key, value in table.items():
        try:
            if key in HOOK_TIMES:
                times[key] = _time(key, value)
            elif key in NAMES or key == ANY:
                commands.append((key, _command(value)))
            else:
                raise ValueError(_unknown(key))
        except ValueError as error:
            wrong.append(Wrong(key, f"{key} of [{HOOKS_TABLE}]: {error}", str(error)))
    return Hooks(tuple(commands), times[HOOK_TIMEOUT], times[OUT_OF_SYNC_AFTER]), wrong


def hooks_of(*files: Settings | None) -> Hooks:
    """Those of the first file that has the table; without any, none. UsageError for a wrong setting in it."""
    for settings in files:
        if settings is None or HOOKS_TABLE not in settings.tables:
            continue
        hooks, wrong = read_hooks(settings.tables[HOOKS_TABLE])
        for first in wrong:
            raise UsageError(f"{settings.where(HOOKS_TABLE, first.key)}: {first.sentence}")
        return hooks
    return Hooks()


def _time(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a time, such as 30s")
    try:
        seconds = float(DURATION.convert(value, None, None))
    except click.BadParameter as error:
        raise ValueError(error.message) from None
    longest = LONGEST_HOOK_S if key == HOOK_TIMEOUT else float("inf")
    if not 1.0 <= seconds <= longest:
        most = f" and at most {longest:g} s" if key == HOOK_TIMEOUT else ""
        raise ValueError(f"expected a time of at least 1 s{most}")
    return seconds


def _command(value: Any) -> Command:
    words = [value] if isinstance(value, str) else value
    right = isinstance(words, list) and words and all(isinstance(word, str) and "\0" not in word for word in words)
    if not right or len(words) > _LISTS_MAX:
        raise ValueError(f"expected a list of texts, the program and its arguments, as in {_EXAMPLE}")
    if not words[0].startswith("/"):
        raise ValueError("expected an absolute path of the program, one that begins with /; no shell looks for it")
    return tuple(words)


def _unknown(key: str) -> str:
    guess = did_you_mean(key, [*NAMES, ANY, *HOOK_TIMES])
    return f"unknown key{guess or f'; expected the name of an event, {ANY}, {HOOK_TIMEOUT} or {OUT_OF_SYNC_AFTER}'}"
