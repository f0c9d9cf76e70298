"""Why the cluster leaves a volume out here is for the status of this boot alone; a file that tells nothing is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydbt.store.cluster_words import (
    CLUSTER_WORDS_NAME,
    ClusterWords,
    cluster_part,
    load_cluster_words,
    save_cluster_words,
)

FOUND = ClusterWords("run 'controller cluster rejoin data' on this node", "2026-01-02T16:18:58+00:00")


def test_the_reason_of_the_cluster_is_told_in_this_boot_and_in_no_other(tmp_path: Path) -> None:
    save_cluster_words(tmp_path, FOUND)
    assert load_cluster_words(tmp_path) == FOUND
    assert cluster_part(tmp_path) == {"cluster": {"words": FOUND.words, "told": FOUND.told}}
    path = tmp_path / CLUSTER_WORDS_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert load_cluster_words(tmp_path) is None and cluster_part(tmp_path) == {}


def test_an_empty_reason_of_the_cluster_is_none(tmp_path: Path) -> None:
    save_cluster_words(tmp_path, ClusterWords("", FOUND.told))
    assert load_cluster_words(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"words": "x"}', b"[" * 100_000])
def test_a_file_that_tells_nothing_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CLUSTER_WORDS_NAME).write_bytes(content)
    assert load_cluster_words(tmp_path) is None and load_cluster_words(tmp_path / "missing") is None
