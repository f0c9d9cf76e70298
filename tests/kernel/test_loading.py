"""A program that the kernel refuses is reported with the verifier's reason."""

from __future__ import annotations

import pytest

from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf


def test_a_program_that_the_verifier_refuses_comes_with_the_verifiers_reason() -> None:
    reads_at_a_number = bytes.fromhex("b70000000000000079000000000000009500000000000000")  # r0 = 0; r0 = *r0; exit
    tracepoint_type = Btf.of_running_kernel().tracepoint_type("block_bio_queue")
    with pytest.raises(syscalls.ProgramRefused) as refusal:
        syscalls.load_program(reads_at_a_number, "refused", tracepoint_type)
    assert "R0 invalid mem access" in refusal.value.verifier_log
