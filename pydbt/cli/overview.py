"""Every volume and replica of this machine in a list, the one that needs a person most at the top."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.cli.locate import last_known, last_status, with_local_words
from pydbt.cli.volume_files import ROLES, STATE_ROOT, VolumeFile, read_volume, volume_files
from pydbt.controller.control import call
from pydbt.controller.pinned import pinned_names, volume_of
from pydbt.controller.registry import PINS, known_places
from pydbt.controller.supervisor_file import supervised_volumes
from pydbt.core.errors import MachineError, NotRunning, PydbtError
from pydbt.core.printable import printable
from pydbt.core.seen.headline import headline
from pydbt.core.seen.sight import WORST_FIRST, level_of
from pydbt.core.seen.view import View

_ANSWER_S = 5.0


def in_order(reports: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst first, as on the page, and by name among equals."""

    def place_in_line(report: dict[str, Any]) -> tuple[int, str]:
        view = View(report)
        return WORST_FIRST.index(level_of(view, stale=not view.flag("running"))), place_of(view)

    return sorted(reports, key=place_in_line)


def place_of(report: View) -> str:
    """SOURCE or TARGET; of programs whose device is gone, its number; of a silent controller that others made, its socket."""
    names = ("source", "target", "device", "socket")
    return next((place for name in names if (place := report.text(name))), "")


def all_reports() -> list[dict[str, Any]]:
    """What is known of every volume and replica of this machine, as of ``status --json``, with its ``state_dir``."""
    reports = [_report(Path(state_dir), *place) for state_dir, place in known_state_dirs().items()]
    own = [report for report in reports if "user" not in report]  # another user's word hides no program
    return in_order([*reports, *programs_alone({str(report.get("volume")).replace("-", "") for report in own})])


def known_state_dirs() -> dict[str, tuple[str, str]]:
    """The state directory of each, with the key of its place in a status, and that place."""
    named = {
        entry.state_dir: ("source" if entry.role == "primary" else "target", entry.place) for entry in known_places()
    }
    for folder in sorted(STATE_ROOT.glob("*")) if STATE_ROOT.is_dir() else ():
        if _has_state(folder):
            named.setdefault(str(folder), ("state_dir", str(folder)))
    known = {os.path.realpath(folder) for folder in named}
    for file in _configured():
        place = os.path.realpath(file.state_dir)
        if file.place is not None and _has_state(file.state_dir) and place not in known:
            named.setdefault(str(file.state_dir), (ROLES[file.role], str(file.place)))
    for volume in supervised_volumes():
        named.setdefault(volume["state_dir"], ("source" if volume["role"] == "run" else "target", volume["place"]))
    return named


def _configured() -> Iterator[VolumeFile]:
    """The files that can be read; what is wrong with others, 'controller configcheck' tells."""
    try:
        paths = volume_files()
    except PydbtError:
        return
    for path in paths:
        with contextlib.suppress(PydbtError):
            if (found := read_volume(path)).role:
                yield found


def _has_state(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in ("volume.json", "replica.json"))


def _report(state_dir: Path, key: str, place: str) -> dict[str, Any]:
    """A directory that cannot be asked, for whatever reason, hides no other one: another user may have made it so."""
    kept: dict[str, Any]
    try:
        told = call(state_dir, {"command": "status"}, _ANSWER_S)
        return {**with_local_words(told, state_dir), "running": True, "state_dir": str(state_dir)}
    except NotRunning:
        return report_of_stopped(state_dir, key, place)
    except PydbtError as error:
        kept, problem = {}, str(error)
    except Exception as error:
        kept, problem = {}, _unreadable(error)
    return {key: place, **kept, "running": False, "state_dir": str(state_dir), "problem": problem}


def report_of_stopped(state_dir: Path, key: str, place: str) -> dict[str, Any]:
    """What is known of one that no controller serves; it may take a while. ``key``: ``source`` or ``target``, with its place."""
    kept: dict[str, Any]
    try:
        kept = last_status(state_dir).values
        problem = f"no controller is running{last_known(state_dir)}"
    except PydbtError as error:
        kept, problem = {}, str(error)
    except Exception as error:
        kept, problem = {}, _unreadable(error)
    return {key: place, **kept, "running": False, "state_dir": str(state_dir), "problem": problem}


def _unreadable(error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or repr(error)
    return f"its state cannot be read: {printable(why)}"


def programs_alone(volumes: set[str]) -> list[dict[str, Any]]:
    """Programs in the kernel of volumes that are not among these."""
    try:
        names = pinned_names()
    except MachineError as error:
        return [{"role": "programs", "device": str(PINS), "running": False, "problem": str(error)}]
    if all(volume_of(name) in volumes for name in names):
        return []
    from pydbt.controller.primary.leftover import pinned_programs

    return [
        {
            "role": "programs",
            "volume": one.name,
            "device": one.device.path if one.device is not None else one.number or "an unknown device",
            "running": False,
            "problem": f"only its programs are in the kernel: 'controller down --volume {one.name}' takes them away",
        }
        for one in pinned_programs()
        if volume_of(one.name) not in volumes
    ]


def lines(reports: list[dict[str, Any]]) -> list[str]:
    """One line each, aligned."""
    entries = [(place_of(view), view) for view in map(View, reports)]
    width = max((len(name) for name, _ in entries), default=0)
    return [f"{name:<{width}}  {_words(view)}" for name, view in entries]


def _words(report: View) -> str:
    try:
        if report.flag("running"):
            return headline(report, datetime.now(UTC))
    except Exception as error:
        return _unreadable(error)
    return report.text("problem") or "no controller is running"
