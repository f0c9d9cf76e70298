"""What the resource agent tells of itself: its parameters and actions, as XML of OCF 1.1.

The older document type of Debian's resource-agents (ra-api-1.dtd), by which `ocf-tester` judges, knows no reload-agent and no
parameter that can be reloaded; the document's own declarations come first, and let them pass (XML 1.0, 3.3).
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from pydbt.cli.cluster.node import CLUSTER_FOLDER, DEFAULT_MAX_LOSS
from pydbt.version import VERSION

AGENT = "volume"
_SUMMARY = "Replicated volume of pydbt"
_ABOUT = (
    "A volume that pydbt replicates: on the promoted node it is the primary, which programs may use, and on the other nodes "
    "it is a replica. It is a promotable clone. Fencing is required: without it nothing is promoted. Without a person only a "
    "replica is promoted that was complete at most max_loss before its primary was fenced."
)
# Name, whether it is required, whether a change needs no restart, default, short and long text.
_PARAMETERS = (
    (
        "volume", True, False, "", "Name of the volume",
        f"The name of the volume: {CLUSTER_FOLDER}/run/NAME.toml has its settings as the primary, and "
        f"{CLUSTER_FOLDER}/secondary/NAME.toml those as a replica, on every node.",
    ),
    (
        "max_loss", False, True, DEFAULT_MAX_LOSS, "Longest loss without a person",
        "A replica is promoted without a person only if it was complete at most this long before the primary was fenced, for "
        "example 30s or 2m. The time that detection and fencing take is part of it.",
    ),
    (
        "folder", False, False, str(CLUSTER_FOLDER), "Folder of the settings",
        "The folder that has a folder run and a folder secondary with the files of the volumes.",
    ),
    ("controller", False, False, "controller", "The program", "Path of the program controller."),
)  # fmt: skip
_ACTIONS = (
    ("start", 240, None, ""), ("stop", 120, None, ""), ("promote", 240, None, ""), ("demote", 240, None, ""),
    ("monitor", 30, 10, "Promoted"), ("monitor", 30, 11, "Unpromoted"), ("notify", 30, None, ""),
    ("reload-agent", 30, None, ""), ("meta-data", 10, None, ""), ("validate-all", 30, None, ""),
)  # fmt: skip
_DOCUMENT_TYPE = """<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd" [
<!ATTLIST action name NMTOKEN #REQUIRED>
<!ATTLIST parameter unique-group CDATA #IMPLIED reloadable (1|0) "0">
]>"""


def metadata() -> str:
    """The answer to the action meta-data."""
    lines = [
        '<?xml version="1.0"?>', _DOCUMENT_TYPE, f"<resource-agent name={quoteattr(AGENT)} version={quoteattr(VERSION)}>",
        "<version>1.1</version>", *_texts(_SUMMARY, _ABOUT), "<parameters>",
    ]  # fmt: skip
    for name, required, reloadable, default, summary, about in _PARAMETERS:
        group = ' unique-group="volume"' if required else ""
        reload = ' reloadable="1"' if reloadable else ""
        lines.append(f'<parameter name="{name}" required="{int(required)}"{group}{reload}>')
        value = "" if required else f" default={quoteattr(default)}"
        lines += [*_texts(summary, about), f'<content type="string"{value}/>', "</parameter>"]
    lines += ["</parameters>", "<actions>"]
    for name, timeout_s, interval_s, role in _ACTIONS:
        more = f' interval="{interval_s}s" role="{role}"' if role else ""
        lines.append(f'<action name="{name}" timeout="{timeout_s}s"{more}/>')
    return "\n".join([*lines, "</actions>", "</resource-agent>"])


def _texts(summary: str, about: str) -> tuple[str, str]:
    return f'<longdesc lang="en">{escape(about)}</longdesc>', f'<shortdesc lang="en">{escape(summary)}</shortdesc>'
