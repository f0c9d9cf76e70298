"""The verdict of the verifier on programs: its reason for a refusal, and how far the ones that it takes are from that."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from tests.lab.disks import loop_device
from tests.lab.kernel_programs import WALKED_AT_MOST, walked_instructions
from tests.lab.tracking import PAYLOAD, tracked


def test_a_program_that_the_verifier_refuses_comes_with_the_verifiers_reason() -> None:
    reads_at_a_number = bytes.fromhex("b70000000000000079000000000000009500000000000000")  # r0 = 0; r0 = *r0; exit
    tracepoint_type = Btf.of_running_kernel().tracepoint_type("block_bio_queue")
    with pytest.raises(syscalls.ProgramRefused) as refusal:
        syscalls.load_program(reads_at_a_number, "refused", tracepoint_type)
    assert "R0 invalid mem access" in refusal.value.verifier_log


def test_the_verifier_walks_at_most_half_of_what_it_would_for_any_program(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 << 20) as device, tracked(device, PAYLOAD):
        walked = walked_instructions()
    assert {"pydbt_submit", "pydbt_request_c", "pydbt_bio_compl"} <= set(walked), "names have 15 characters"
    assert 1000 < max(walked.values()) <= WALKED_AT_MOST, walked
