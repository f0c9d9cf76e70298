"""Whether a target is the one that a state directory was kept for, compared by each kind of its lasting names."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

NAMELESS = "block-device:"
"""The identity of a block device for which the kernel has no lasting name; the beginning of every device's identity."""
SLOT = "slot"
"""The kind that names a place and not a disk: it counts only for a target that never had another name."""


class Likeness(Enum):
    """UNKNOWN: the recorded target was a device without any name, and may be this one."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


def likeness(recorded: str, kept: Mapping[str, str], identity: str, names: Mapping[str, str]) -> Likeness:
    """What the names tell.

    ``recorded``: the one name in the record, the best that was known when it was made. ``kept``: all that were seen since, by
    kind; empty in the state of an earlier version. ``identity`` and ``names``: the same of the target now.
    """
    common = kept.keys() & names.keys()
    telling = common if kept.keys() == {SLOT} else common - {SLOT}
    if telling:
        return Likeness.SAME if all(kept[kind] == names[kind] for kind in telling) else Likeness.OTHER
    if kept:
        return Likeness.OTHER
    if recorded == NAMELESS:
        return Likeness.UNKNOWN if identity.startswith(NAMELESS) else Likeness.OTHER
    return Likeness.SAME if recorded in (identity, *names.values()) else Likeness.OTHER
