"""Pacemaker's commands as the agent calls them, over files in a folder: what a test says is so, and what was set is kept.

The commands that need no daemon are checked against the real ones by a test.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

_COMMANDS = ("cibadmin", "crm_attribute", "crm_node", "stonith_admin", "attrd_updater", "crm_resource")
_HISTORY = "<pacemaker-result><fence_history>{}</fence_history></pacemaker-result>"
_SCRIPT = """#!/bin/sh
here={folder}
echo "$(basename "$0") $*" >>"$here/calls"
case $(basename "$0") in
cibadmin) [ ! -e "$here/gone" ] || {{ echo "Could not connect" >&2; exit 102; }}
    sed "s|@OWNER@|$(cat "$here/owner" 2>/dev/null)|" "$here/cib.xml" ;;
crm_node) cat "$here/node" ;;
stonith_admin) cat "$here/history.xml" ;;
crm_attribute) case "$*" in
    *--promotion=*--delete*) rm -f "$here/score" ;;
    *--promotion=*) for word; do :; done; echo "$word" >"$here/score" ;;
    *) [ ! -e "$here/kills" ] || {{ kill -9 $PPID; exit 1; }}
        for word; do :; done; echo "$word" >"$here/owner" ;;
    esac ;;
attrd_updater) case "$*" in *--delete*) rm -f "$here/words" ;; *) for word; do :; done; echo "$word" >"$here/words" ;; esac ;;
esac
"""
FENCING = '<primitive id="power" class="stonith" type="fence_test"/>'


class PacemakerFiles:
    """``commands`` is a folder for PATH. By default fencing is there, and nobody owns the volume ``data``."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder, self.commands = folder, folder / "bin"
        self.commands.mkdir(parents=True)
        script = _SCRIPT.format(folder=folder)
        for name in _COMMANDS:
            path = self.commands / name
            path.write_text(script)
            path.chmod(0o755)
        (folder / "node").write_text(f"{node}\n")
        self.configure()
        self.fence()

    def configure(self, properties: str = "", resources: str = FENCING) -> None:
        """The cluster's database; ``properties`` are elements nvpair."""
        (self.folder / "cib.xml").write_text(
            '<cib><configuration><crm_config><cluster_property_set id="p">'
            f'<nvpair id="o" name="pydbt-data" value="@OWNER@"/>{properties}</cluster_property_set></crm_config>'
            f"<resources>{resources}</resources></configuration></cib>\n"
        )

    def fence(self, *nodes: str, at: datetime | None = None) -> None:
        """These, and no others, were fenced, now or ``at`` another moment."""
        moment = (at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S.%fZ")
        events = (
            f'<fence_event target="{node}" action="off" status="success" completed="{moment}"/>' for node in nodes
        )
        (self.folder / "history.xml").write_text(_HISTORY.format("".join(events)))

    def own(self, text: str) -> None:
        """Set the owner of the volume."""
        (self.folder / "owner").write_text(f"{text}\n")

    def kill_who_owns(self, kills: bool) -> None:
        """Whoever sets the owner is killed before the cluster knows it."""
        (self.folder / "kills").touch() if kills else (self.folder / "kills").unlink()

    def end(self) -> None:
        """The cluster runs no more on this node."""
        (self.folder / "gone").touch()

    def kept(self, name: str) -> str:
        """What was set: ``owner``, ``score``, ``words``; empty when it was taken away, or never set."""
        path = self.folder / name
        return path.read_text().strip() if path.exists() else ""

    def path(self) -> str:
        """PATH with these commands first, and the program as ``controller``."""
        program = self.commands / "controller"
        root = Path(__file__).parents[2]
        program.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m pydbt.cli.main "$@"\n')
        program.chmod(0o755)
        return f"{self.commands}:{os.environ['PATH']}"
