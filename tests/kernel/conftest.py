"""These tests run against the real kernel: without root or BPF they fail, they never skip."""

from __future__ import annotations

import os

import pytest

from tests.lab.disks import ensure_bpffs


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    assert os.geteuid() == 0, "tests/kernel need root: run them with sudo"
    ensure_bpffs()
