"""Why the cluster does not promote or start a volume here: the file ``cluster-words`` in its state directory, for the status."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.posix.atomic import replace_file
from pydbt.posix.boot import boot_id
from pydbt.posix.ownership import read_own

CLUSTER_WORDS_NAME = "cluster-words"
CLUSTER_WORDS_VERSION = 1


@dataclass(frozen=True, slots=True)
class ClusterWords:
    """``words``: the reason, and what to do; empty when nothing stands against it. ``told``: the moment (RFC 3339)."""

    words: str
    told: str


def save_cluster_words(state_dir: Path, found: ClusterWords) -> None:
    """They hold in this boot. StateError when they cannot be written."""
    values = {"version": CLUSTER_WORDS_VERSION, **asdict(found), "boot": boot_id()}
    replace_file(state_dir / CLUSTER_WORDS_NAME, json.dumps(values).encode() + b"\n", durable=False)


def load_cluster_words(state_dir: Path) -> ClusterWords | None:
    """None where nothing stands against it, where the words are of an earlier boot, or where the file tells nothing."""
    try:
        values = json.loads(read_own(state_dir / CLUSTER_WORDS_NAME))
        found, boot = ClusterWords(str(values["words"]), str(values["told"])), values["boot"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if found.words and boot == boot_id() else None


def cluster_part(state_dir: Path) -> dict[str, dict[str, str]]:
    """The key ``cluster`` of a status; empty where there is nothing to tell."""
    found = load_cluster_words(state_dir)
    return {} if found is None else {"cluster": asdict(found)}
