"""From a SOURCE or a state directory on the command line to the running controller."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pydbt.cli.file_role import role_part
from pydbt.cli.place import place_argument, typed_name
from pydbt.cli.values import ADDRESS, PATH
from pydbt.controller.control import call, is_answering, read_saved_status
from pydbt.controller.former_secondary import former_words
from pydbt.controller.pinned import pinned_names
from pydbt.controller.registry import (
    is_claimed,
    is_secondary_running,
    known_places,
    secondary_state_dir_of,
    state_dir_of,
)
from pydbt.controller.supervisor_file import supervised_volumes
from pydbt.core.configured.supervision import Condition
from pydbt.core.errors import MachineError, NotRunning, PydbtError, UsageError
from pydbt.core.seen.headline import (
    UNKNOWN_AMOUNT,
    cluster_words,
    divergence_words,
    handover_words,
    problem_words,
    role_words,
)
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import format_address
from pydbt.posix.ownership import other_owner
from pydbt.store.cluster_words import cluster_part

_Command = TypeVar("_Command", bound=Callable[..., Any])


def volume_arguments(command: _Command) -> _Command:
    """Decorate a command with ``SOURCE|--state DIR``."""
    state = click.option("--state", "state_dir", type=PATH, metavar="DIR", help="The state directory.")
    return place_argument("source")(state(command))


def secondary_option(command: _Command) -> _Command:
    """Decorate a command with ``--secondary ADDR:PORT``."""
    return click.option("--secondary", type=ADDRESS, metavar="ADDR:PORT", help="Only this one of several secondaries.")(
        command
    )


def named(secondary: tuple[str, int] | None) -> dict[str, str]:
    """The part of a request that names one secondary, if one is meant."""
    return {} if secondary is None else {"secondary": format_address(*secondary)}


def locate(source: Path | None, state_dir: Path | None) -> Path:
    """The state directory that is meant. NotRunning when none is known for SOURCE, UsageError for wrong arguments.

    SOURCE may also be the TARGET of a secondary. The command line overrides the state directory of the settings file.
    """
    name = typed_name()
    if state_dir is not None and (
        name or not (source is not None and _is_typed("source") and not _is_typed("state_dir"))
    ):
        if not state_dir.is_dir() and name and not _is_typed("state_dir"):
            words = supervised_words(state_dir)
            raise NotRunning(f"{name} has not run yet: its state directory {state_dir} does not exist{words}")
        if not state_dir.is_dir():
            raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
        if source is not None and not name and os.geteuid() == 0:
            _require_place_of(state_dir, source)
        return state_dir
    if source is None:
        raise UsageError("name the SOURCE, or its state directory with --state DIR")
    if source.is_dir():
        raise UsageError(f"{source} is a directory, not a SOURCE: name a state directory with --state {source}")
    found = _known_place(source)
    if found is None:
        raise NotRunning(
            f"no controller has run for {source} since it was attached: name its state directory with --state DIR"
            f"{unknown_programs(source)}"
        )
    return found


def _require_place_of(state_dir: Path, source: Path) -> None:
    """UsageError when a state directory goes with another SOURCE or TARGET: the command would be for that one."""
    places = [Path(entry.place) for entry in known_places() if _is_same_place(Path(entry.state_dir), state_dir)]
    known = [place for place in places if (found := _last_used_with(place)) and _is_same_place(found, state_dir)]
    if known and not any(_is_same_place(source, place) for place in known):
        raise UsageError(
            f"{state_dir} is the state directory of {known[0]}, and not of {source}: leave out one of the two"
        )


def _last_used_with(place: Path) -> Path | None:
    try:
        return _known_place(place)
    except PydbtError:  # the device is gone
        return None


def _is_same_place(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.is_block_device() and other.is_block_device() and os.stat(one).st_rdev == os.stat(other).st_rdev
    except OSError:
        return False


def _is_typed(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _known_place(path: Path) -> Path | None:
    """The state directory last used with a SOURCE or TARGET; of the running one, when it was both."""
    if is_secondary_running(path):
        return secondary_state_dir_of(path)
    if path.is_file():
        # An image file may be a TARGET; it is no SOURCE.
        if (found := secondary_state_dir_of(path)) is None:
            BlockDevice.identify(path)  # the sentence for a file that is neither
        return found
    return state_dir_of(BlockDevice.identify(path)) or secondary_state_dir_of(path)


def unknown_programs(source: Path) -> str:
    """An addition for a SOURCE without a controller: programs of a volume that track it all the same."""
    try:
        if source.is_file() or not pinned_names():
            return ""
    except MachineError as error:
        return f"; {error}"
    from pydbt.controller.primary.leftover import pinned_programs

    device = BlockDevice.identify(source)
    if all(one.device is None or one.device.number != device.number for one in pinned_programs()):
        return ""
    return f"; programs that track it are still in the kernel ('controller down {source}' takes them away)"


def ask(state_dir: Path, request: dict[str, Any], timeout_s: float | None = 10.0) -> dict[str, Any]:
    """One request to the controller of a state directory; NotRunning names its last known state."""
    try:
        return call(state_dir, request, timeout_s)
    except NotRunning as error:
        if is_claimed(state_dir) and not is_answering(state_dir):
            raise NotRunning(
                f"the controller with the state directory {state_dir} is starting or ending, and does not answer: "
                "its log says what it is at"
            ) from error
        raise NotRunning(f"{error}{last_known(state_dir)}") from error


def with_local_words(report: dict[str, Any], state_dir: Path) -> dict[str, Any]:
    """What a running controller told, with why the cluster does not promote it, and that its file has another role.

    Of another user's secondary nothing more.
    """
    if "user" in report:
        return report
    return {**report, **cluster_part(state_dir), **role_part(state_dir, report.get("role"))}


def ask_primary(state_dir: Path, what: str) -> dict[str, Any]:
    """The status of a primary. UsageError, which ends with ``what``, when a secondary answers."""
    report = ask(state_dir, {"command": "status"})
    if "secondaries" not in report:
        raise UsageError(f"{state_dir} is the state directory of a secondary: ask its primary {what}")
    return report


def last_status(state_dir: Path) -> View:
    """The last status that was saved, with the figures of now; empty when there is none, or when it is another user's."""
    if other_owner(state_dir):  # whatever is there, a pipe for example, is that user's doing
        return View(None)
    # Only now: not needed while a controller answers.
    from pydbt.controller.primary.stopped import status_of_armed, with_present_figures

    saved = read_saved_status(state_dir) or status_of_armed(state_dir)
    return View(None if saved is None else {**with_present_figures(state_dir, saved), **role_part(state_dir)})


def supervised_words(state_dir: Path) -> str:
    """An addition for a volume that a `run` or `secondary` of all volumes keeps running: why it does not run now."""
    for volume in supervised_volumes():
        if os.path.realpath(volume["state_dir"]) != os.path.realpath(state_dir):
            continue
        why = f" ({volume['failure']})" if volume["failure"] else ""
        if volume["phase"] == Condition.RUNNING:
            return f"; 'controller {volume['role']}' has started it again after it failed{why}" if why else ""
        again = f", and is started again at {volume['next_start']}" if volume["next_start"] else ""
        return f"; 'controller {volume['role']}' has it as {volume['phase']}{why}{again}"
    return ""


def armed_words(last: View) -> str:
    """An addition for a volume that was armed, and that no run has taken over; empty for any other."""
    armed = last.part("armed")
    if not armed:
        return ""
    since = armed.text("since") or "an unknown time"
    if last.text("mode") == "armed":
        return f"; armed since {since}: every write is tracked"
    return f"; armed at {since}, and the next run compares everything ({armed.text('broken')})"


def _is_tracked(state_dir: Path) -> bool:
    if not (state_dir / "volume.json").exists():
        return False
    from pydbt.controller.primary.leftover import is_tracked

    return is_tracked(state_dir)


def last_known(state_dir: Path) -> str:
    """An addition for a controller that does not answer: whether writes are tracked, its last status, and what else runs."""
    if owner := other_owner(state_dir):
        return f", which belongs to user {owner}: its last state is that user's to tell"
    return f"{_last_state(state_dir)}{former_words(state_dir)}"


def _last_state(state_dir: Path) -> str:
    # Only now: it brings large libraries, and most commands meet a controller that answers.
    from pydbt.controller.primary.stopped import role_now, undecided_part

    last = last_status(state_dir)
    tracked = armed_words(last) or ("; writes are still tracked" if _is_tracked(state_dir) else "")
    tracked += supervised_words(state_dir)
    if not last:
        parts = View({**undecided_part(state_dir), **cluster_part(state_dir), **role_part(state_dir)})
        found = handover_words(parts), divergence_words(parts), cluster_words(parts), role_words(parts)
        return "; ".join([tracked, *filter(None, found)])
    words = [last.text("mode") or "unknown"]
    if words[0] in ("demoted", "promoted"):
        return "; ".join([f"{tracked}; {role_now(state_dir, words[0])}", *problem_words(last)])
    if state := last.text("replica_state"):
        words.append(f"replica {state}")
    if "out_of_sync_bytes" in last:
        size = last.number("out_of_sync_bytes")
        words.append(f"{UNKNOWN_AMOUNT if size is None else format_bytes(size)} out of sync")
    at = f"{', '.join(words)} at {last.text('saved_at') or 'an unknown time'}"
    return "; ".join([f"{tracked}; last known state: {at}", *problem_words(last)])
