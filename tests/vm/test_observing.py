"""The observing programs on Debian's kernel: its verifier takes them, and they tell who wrote what, and how long it took"""

from __future__ import annotations

import json

import pytest

from tests.vm.guest_observe import BUFFERED, DIRECT
from tests.vm.machine import TREE
from tests.vm.site import MOUNT


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mkfs", ["mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0", "mkfs.xfs -q -f"])
def test_the_bytes_of_two_writers_are_told_by_process_and_each_io_has_its_latency(machines, mkfs, tmp_path):
    machine = machines.primary
    program = f"cd {TREE} && .venv/bin/python -m tests.vm.guest_observe {machine.device('data')} '{mkfs}' {MOUNT}"
    try:
        machine.run(f"{program} /root/observed.json", timeout=900)
        machine.get("/root/observed.json", tmp_path / "observed.json")
    finally:
        machine.run(f"umount {MOUNT}", check=False)
        machine.run(f"blkdiscard -f {machine.device('data')}")
    told = json.loads((tmp_path / "observed.json").read_text())
    answer = told["answer"]
    assert told["problem"] == "" and answer["lost"] == {"rows": 0, "writers": 0}
    for view in ("processes", "groups", "files"):
        assert sum(row["written_bytes"] for row in answer[view]) == answer["counted_bytes"], view
    assert answer["excess_bytes"] == 0
    by_process = {row.get("process"): row for row in answer["processes"]}
    assert abs(by_process[told["direct"]]["written_bytes"] - DIRECT) <= DIRECT // 50
    assert abs(by_process[told["buffered"]]["written_bytes"] - BUFFERED) <= BUFFERED // 10
    unknown = sum(row["written_bytes"] for row in answer["processes"] if row["kind"] == "unknown")
    assert unknown <= answer["captured_bytes"] // 10
    assert told["bytes_of_direct"] == DIRECT and told["records_of_direct"] >= DIRECT >> 20
    assert told["write_bytes"] >= DIRECT + BUFFERED and told["timed"] == told["writes"] > 0
