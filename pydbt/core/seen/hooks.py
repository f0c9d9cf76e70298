"""Programs that are run when something changes: which for which event, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.printable import printable
from pydbt.core.seen.event_names import ANY
from pydbt.core.seen.events import Event, Figure
from pydbt.core.seen.lateness import DEFAULT_LATE_AFTER_S

HOOK_TIMEOUT, OUT_OF_SYNC_AFTER = "timeout", "out-of-sync-after"
HOOK_TIMES = {
    HOOK_TIMEOUT: "A program that runs for longer is killed, with all that it started.",
    OUT_OF_SYNC_AFTER: "How long a replica lacks something before `out-of-sync` is told; it needs no hook.",
}
"""The keys beside the names of events, in the table of a settings file."""
DEFAULT_HOOK_TIMEOUT_S = 30.0
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHARACTERS_MAX = 4096
"""Of one variable: what a person reads. A file's name alone may have as many."""

Command = tuple[str, ...]
"""A program, by its path, and its arguments. No shell reads it."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """``commands`` by the name of an event, or ``any``. ``late_after_s``: see ``Lateness``, which needs no hook."""

    commands: tuple[tuple[str, Command], ...] = ()
    timeout_s: float = DEFAULT_HOOK_TIMEOUT_S
    late_after_s: float = DEFAULT_LATE_AFTER_S

    def of(self, name: str) -> tuple[Command, ...]:
        """Those for an event: its own first."""
        return tuple(command for wanted in (name, ANY) for event, command in self.commands if event == wanted)


NO_HOOKS = Hooks()


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose events they are. ``role``: primary or secondary; ``path``: SOURCE or TARGET; ``name``: its file's, or the path."""

    role: str
    path: str
    name: str
    state_dir: str


def environment(event: Event, whose: Whose, volume: str, dropped: int) -> dict[str, str]:
    """All that a hook finds in its environment. ``dropped``: hooks that were left out since the last one that was run."""
    return {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", **variables(event, whose, volume), "PYDBT_DROPPED": str(dropped)}


def variables(event: Event, whose: Whose, volume: str) -> dict[str, str]:
    """An event as names and values, for a hook and for systemd's journal. Each value is one line of printable characters.

    ``volume``: its identity, 32 hexadecimal digits; empty before it is known.
    """
    told = {
        "EVENT": event.name,
        "MOMENT": event.moment,
        "NUMBER": str(event.number),
        "WORDS": event.words,
        "ROLE": whose.role,
        "VOLUME": whose.name,
        "PLACE": whose.path,
        "STATE_DIR": whose.state_dir,
        "VOLUME_ID": volume.replace("-", ""),
        "SECONDARY": str(event.figures.get("secondary", "")),
        **{
            f"FIGURE_{name.upper()}": figure_text(value) for name, value in event.figures.items() if name != "secondary"
        },
    }
    return {f"PYDBT_{name}": printable(value)[:_CHARACTERS_MAX] for name, value in told.items()}


def figure_text(value: Figure) -> str:
    """``true``, ``false``, a number or a text; empty for what is not known."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
    return str(value)
