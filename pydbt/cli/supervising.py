"""``controller run`` and ``controller secondary`` without a SOURCE or TARGET: everything that is configured for the role."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pydbt.cli.config import DEFAULT_FILE, Settings, is_missing, read_settings
from pydbt.cli.config_check import Checked, Checks
from pydbt.cli.explain import explain
from pydbt.cli.hook_settings import hooks_of
from pydbt.cli.program import Stopped
from pydbt.cli.responsive import finish_writing, write_as_at_the_start, write_without_waiting
from pydbt.cli.serving import serve_in_role
from pydbt.cli.side import Options, Side
from pydbt.cli.volume_files import ROLES, VOLUMES, volume_files, volumes_folder
from pydbt.controller.supervisor import Child, Supervisor
from pydbt.controller.units import is_enabled, unit_of
from pydbt.core.configured.supervision import Wanted
from pydbt.core.errors import UsageError
from pydbt.device.checks import require_root
from pydbt.network.certificates import REVOKED_FILE_NAME
from pydbt.posix.privileges import forbid_core_dumps
from pydbt.posix.service_manager import ServiceManager

_KIND = {"run": "volume", "secondary": "replica"}


def run_all_configured(context: click.Context, given: dict[str, Any]) -> int | None:
    """Run every configured volume of the command's role; the exit code. UsageError when nothing is configured.

    None: the command line, or ``controller.toml`` alone, is about one volume.
    """
    role = str(context.info_name)
    names = [parameter.name for parameter in context.command.params if parameter.name]
    if any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names):
        return None
    forbid_core_dumps()  # it reads every identity
    group, general = context.find_root().command, context.find_root().params.get("config") or DEFAULT_FILE
    assert isinstance(group, click.Group)
    found = _check(group, general).volumes
    if not any(volume.role in (role, "") for volume in found if volume.path != general):
        if given[ROLES[role]] is not None:
            return None
        raise UsageError(
            f"no {_KIND[role]} is configured: write {VOLUMES}/NAME.toml with a table [{role}], or name one "
            f"{ROLES[role].upper()} (see 'controller {role} --help')"
        )
    require_root(f"controller {role}", "it runs every configured volume")
    _import_everything(role)
    write_without_waiting()
    manager = ServiceManager.that_started_us()
    return Supervisor(role, volumes_folder(), lambda: configured(role, group, general), manager).run()


def configured(role: str, group: click.Group, general: Path, root: Path = Path("/")) -> dict[str, Child]:
    """Everything whose file begins in a role, by name; that of ``controller.toml`` has the name of the file. The state decides,
    at each start, the role in which it is served.

    A file whose role cannot be told is there too, with its problem: its volume may run, and then runs on. UsageError when the
    folder is gone or cannot be read: nothing is known of its volumes then.
    """
    found = _check(group, general, known=True)
    children = {}
    defaults = _defaults(general)
    for volume in found.volumes:
        if volume.role not in (role, ""):
            continue
        file, place = str(volume.path), str(volume.place or "")
        problems = [str(problem) for problem in found.problems if problem.file == file]
        options = found.options.get((file, role))
        if problems or options is None:
            words = problems[0] if problems else f"{volume.where()}: not everything that a start needs is there"
            more = f" (and {len(problems) - 1} more: 'controller configcheck')" if len(problems) > 1 else ""
            children[volume.name] = Child(Wanted("", problem=words + more), place, str(volume.state_dir))
            continue
        unit = unit_of(role, volume.name)
        side = Side(volume, group, hooks_of(volume.settings, defaults))
        wanted = Wanted(_settings(side), _identity(options), unit if is_enabled(unit, root) else "")
        children[volume.name] = Child(wanted, place, str(volume.state_dir), _server(side))
    return children


def _check(group: click.Group, general: Path, *, known: bool = False) -> Checked:
    checks = Checks(group, devices=False)
    if not is_missing(general):
        checks.settings(general)
    for path in volume_files(known=known):
        checks.volume(path)
    checks.all_together()
    return checks.found


def _defaults(general: Path) -> Settings | None:
    """The file of defaults, for what of it counts for every volume; None without one, or when it cannot be used."""
    try:
        return None if is_missing(general) else read_settings(general)
    except UsageError:
        return None  # it is told as a problem of its own


def _settings(side: Side) -> str:
    """The same as long as tables and hooks say the same, in whatever order and with whatever comments."""
    volume = side.volume
    other = volume.settings.tables[volume.other] if volume.other else None
    text = json.dumps([volume.table, other, repr(side.hooks)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _identity(options: Options) -> str:
    """Another one when the identity, or the list of revoked keys beside it, is another file or was written again."""
    if options.identity is None:
        return ""
    seen = []
    for path in (options.identity, options.identity.with_name(REVOKED_FILE_NAME)):
        try:
            status = os.stat(path)
        except OSError:
            continue
        seen.append((str(path), status.st_ino, status.st_mtime_ns, status.st_size))
    return repr(seen)


def _server(side: Side) -> Callable[[], tuple[int, str]]:
    """To be called in the process of the volume."""

    def serve() -> tuple[int, str]:
        write_as_at_the_start()
        try:
            return serve_in_role(side.options(), alone=False, side=side), ""
        except (Exception, KeyboardInterrupt, Stopped) as error:
            sentence, code = explain(error)
            return code, sentence
        finally:
            finish_writing()

    return serve


def _import_everything(role: str) -> None:
    """What each child would import: its pages are shared then. The other role is one switchover away."""
    import pydbt.controller.primary.service
    import pydbt.controller.secondary.service  # noqa: F401

    if role == "run":
        with contextlib.suppress(ImportError):  # the ways to secondaries are watched with it, where it is there
            import pyroute2.netlink.exceptions  # noqa: F401
