"""What Pacemaker's own database and history say of a volume: texts in XML in, facts out.

Formats: the CIB (Pacemaker Explained, "Cluster-Wide Configuration"), and the element ``fence_event`` of `stonith_admin --history
--output-as=xml` (its schema is api/fence-event-*.rng of Pacemaker).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pydbt.core.cluster.candidate import Fencing
from pydbt.core.cluster.owner import ContentOwner

_FALSE = frozenset({"false", "off", "no", "n", "0"})  # crm_str_to_boolean() of Pacemaker
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,6})?\d*\s*(Z|[+-]\d\d:?\d\d)")


@dataclass(frozen=True, slots=True)
class ClusterView:
    """``fencing_enabled``: the property stonith-enabled. ``fencing_devices``: those that are configured and not stopped.

    ``owner`` of the volume, None when the cluster knows of none. ``resources``: names of those that are this volume's.
    """

    fencing_enabled: bool
    fencing_devices: tuple[str, ...]
    owner: ContentOwner | None
    resources: tuple[str, ...] = ()

    @property
    def why_unfenced(self) -> str:
        """Why nothing is promoted in this cluster; empty when fencing is there."""
        if not self.fencing_enabled:
            return "stonith-enabled is false, and without fencing there may be two primaries: set it to true"
        if not self.fencing_devices:
            return "no fencing device is configured, and without fencing there may be two primaries: add one to the cluster"
        return ""


def owner_attribute(volume: str) -> str:
    """The name under which the cluster keeps the owner of a volume."""
    return f"pydbt-{volume}"


def cluster_view(text: str, volume: str) -> ClusterView:
    """Of the CIB as `cibadmin --query` prints it. ValueError for any other text."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if root.find("configuration") is None:
        raise ValueError("it has no configuration")
    properties = {
        pair.get("name", ""): pair.get("value", "") for pair in root.iterfind("./configuration/crm_config//nvpair")
    }
    enabled = properties.get("stonith-enabled", "true").strip().lower() not in _FALSE
    kinds = {one.get("id"): one.get("class") for one in root.iterfind("./configuration/resources//template")}
    primitives = root.findall("./configuration/resources//primitive")
    devices = [
        one.get("id", "")
        for one in primitives
        if one.get("class", kinds.get(one.get("template"))) == "stonith" and not _is_stopped(one)
    ]
    own = [
        one.get("id", "")
        for one in primitives
        if one.get("provider") == "pydbt" and _value(one, "./instance_attributes/nvpair", "volume") == volume
    ]
    owner = ContentOwner.from_text(properties.get(owner_attribute(volume), ""))
    return ClusterView(enabled, tuple(devices), owner, tuple(own))


def fencing_history(text: str) -> tuple[Fencing, ...]:
    """The fencings that succeeded, of `stonith_admin --history --output-as=xml`. ValueError for any other text.

    One whose moment cannot be read without doubt, such as one without a time zone, tells nothing.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    found = []
    for event in root.iter("fence_event"):
        completed = _moment(event.get("completed", ""))
        if completed is not None and event.get("status") == "success" and event.get("action") in ("off", "reboot"):
            found.append(Fencing(event.get("target", ""), completed))
    return tuple(found)


def _is_stopped(primitive: Element) -> bool:
    return (_value(primitive, "./meta_attributes/nvpair", "target-role") or "").lower() == "stopped"


def _value(element: Element, path: str, name: str) -> str | None:
    return next((pair.get("value") for pair in element.iterfind(path) if pair.get("name") == name), None)


def _moment(text: str) -> datetime | None:
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        return None
    day, time, fraction, zone = match.groups(default="")
    try:
        return datetime.fromisoformat(f"{day}T{time}{fraction}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        return None
