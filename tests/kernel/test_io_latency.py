"""Device times are those that bcc measures in the manner of its tool biolatency, in the same run.

The tool itself (0.26) needs kprobes, which not every kernel has. So its method is here, on the same two tracepoints as the
programs, and with nothing of theirs: a hash table of requests, and a histogram of powers of two, both by bcc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydbt.core.seen.io_names import PARTS
from pydbt.core.seen.latency import EDGES_NS
from pydbt.core.units import MIB
from pydbt.kernel.btf import Btf
from pydbt.kernel.headers import find_headers
from pydbt.kernel.tracing.block_io import BlockIo
from tests.kernel.test_block_io import fio, io_device
from tests.lab.disks import loop_device

BIOLATENCY = r"""
BPF_HASH(start, u64, u64, 65536);
BPF_HISTOGRAM(reads);
BPF_HISTOGRAM(writes);

RAW_TRACEPOINT_PROBE(block_rq_issue)
{
	u64 request = ctx->args[0], now = bpf_ktime_get_ns(), queue, disk;
	u32 major, minor;

	bpf_probe_read_kernel(&queue, 8, (void *)(request + OFF_QUEUE));
	bpf_probe_read_kernel(&disk, 8, (void *)(queue + OFF_DISK));
	bpf_probe_read_kernel(&major, 4, (void *)(disk + OFF_MAJOR));
	bpf_probe_read_kernel(&minor, 4, (void *)(disk + OFF_MINOR));
	if (major == MAJOR && minor == MINOR)
		start.update(&request, &now);
	return 0;
}

RAW_TRACEPOINT_PROBE(block_rq_complete)
{
	u64 request = ctx->args[0], *since = start.lookup(&request);
	u32 flags;

	if (!since)
		return 0;
	bpf_probe_read_kernel(&flags, 4, (void *)(request + OFF_FLAGS));
	if ((flags & 255) == 1)
		writes.increment(bpf_log2l(bpf_ktime_get_ns() - *since));
	else if ((flags & 255) == 0)
		reads.increment(bpf_log2l(bpf_ktime_get_ns() - *since));
	start.delete(&request);
	return 0;
}
"""
# bcc keeps its programs for as long as the process lives: it gets one of its own, which prints when its stdin ends.
PROCESS = """
import json, os, sys
from bcc import BPF
programs = BPF(text=sys.argv[1], cflags=sys.argv[2:])
print("attached", flush=True)
sys.stdin.read()
print(json.dumps({name: {key.value: value.value for key, value in programs[name].items()} for name in ("reads", "writes")}))
"""


@pytest.mark.parametrize("load", [("--bs=4k", "--iodepth=1"), ("--bs=64k", "--iodepth=16")])
def test_the_distribution_is_that_of_biolatencys_method(tmp_path: Path, load: tuple[str, ...]) -> None:
    with loop_device(tmp_path, 128 * MIB) as disk:
        device = io_device(disk)
        with beside(device.disk_major, device.disk_minor) as process, BlockIo.attach(device) as programs:
            fio(disk, "randrw", "--number_ios=5000", "--norandommap", *load)
            figures = programs.figures()
            output, _ = process.communicate(timeout=60)
    theirs = json.loads(output)
    for operation, name in ((0, "reads"), (1, "writes")):
        by_power = {int(power): count for power, count in theirs[name].items()}
        counts = figures[operation]["latency"][PARTS.index("device")]
        total = int(counts.sum())
        assert abs(sum(by_power.values()) - total) <= 20, "they were not attached at the very same moment"
        assert total > 900
        for power in range(9, 40):
            # bpf_log2l() puts what is less than a power of two into the slot of that power
            slower_by_theirs = sum(count for at, count in by_power.items() if at > power)
            # One of the two programs runs inside the other's interval: a microsecond moves many from one slot to the next.
            most, least = (int(counts[EDGES_NS[:-1] >= (1 << power) * factor].sum()) for factor in (0.8, 1.25))
            slack = 0.03 * total + 20
            assert least - slack <= slower_by_theirs <= most + slack, (
                name,
                power,
                least,
                slower_by_theirs,
                most,
                total,
            )


def beside(major: int, minor: int) -> subprocess.Popen[str]:
    btf, headers = Btf.of_running_kernel(), find_headers()
    values = {
        "MAJOR": major,
        "MINOR": minor,
        "OFF_QUEUE": btf.offset("request", "q"),
        "OFF_DISK": btf.offset("request_queue", "disk"),
        "OFF_FLAGS": btf.offset("request", "cmd_flags"),
        "OFF_MAJOR": btf.offset("gendisk", "major"),
        "OFF_MINOR": btf.offset("gendisk", "first_minor"),
    }
    flags = [*(f"-D{name}={value}" for name, value in values.items()), *headers.flags, "-Wno-macro-redefined"]
    source = {"BCC_KERNEL_SOURCE": headers.source} if headers.source else {}
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, BIOLATENCY, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | source,
    )
    assert process.stdout is not None and process.stdout.readline() == "attached\n"
    return process
