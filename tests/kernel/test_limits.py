"""Each obstacle to the programs is named: memory that a control group allows, the verifier, lockdown, the machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pydbt.core.errors import MachineError, ShortNow
from pydbt.kernel import capture, child, layout, limits, loader, pins, syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.capture import CaptureOptions, VolumeSpec
from pydbt.kernel.compiled import SOURCE
from pydbt.kernel.limits import lockdown_words, memory_limit_bytes, short_of_memory, shortage, why_loader_ended
from pydbt.kernel.loaded import VerifierRefused

VOLUME = VolumeSpec(8, 0, 0, 2048)


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    """In place of the fixture of this folder: nothing here needs root or loads a program."""


# Memory


def test_the_least_limit_of_all_control_groups_is_found(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    service = tmp_path / "system.slice/pydbt.service"
    service.mkdir(parents=True)
    own.write_text("0::/system.slice/pydbt.service\n")
    assert memory_limit_bytes(tmp_path, own) is None
    (service / "memory.max").write_text("max\n")
    (service.parent / "memory.max").write_text("134217728\n")
    assert memory_limit_bytes(tmp_path, own) == 128 << 20
    assert "may use 128 MiB" in short_of_memory(tmp_path, own) and "MemoryMax=" in short_of_memory(tmp_path, own)
    (service / "memory.max").write_text("67108864\n")
    assert memory_limit_bytes(tmp_path, own) == 64 << 20
    first = tmp_path / "memory/box"
    first.mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text("33554432\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    own.write_text("4:memory:/box\n3:cpuset:/\n")
    assert memory_limit_bytes(tmp_path, own) == 32 << 20


@pytest.mark.parametrize(("limit", "kind"), [("max", ShortNow), ("8589934592", ShortNow), ("134217728", MachineError)])
def test_only_a_limit_that_is_too_small_every_time_keeps_a_service_from_trying_again(
    tmp_path: Path, limit: str, kind: type[Exception]
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/pydbt.service\n")
    (tmp_path / "pydbt.service").mkdir()
    (tmp_path / "pydbt.service/memory.max").write_text(f"{limit}\n")
    error = shortage("the compiler was killed", tmp_path, own)
    assert type(error) is kind and str(error) == "the compiler was killed"
    assert "not enough memory" in str(shortage("", tmp_path, own))


@pytest.mark.parametrize(
    ("code", "messages"),
    [(-9, ""), (1, "terminate called ... std::bad_alloc"), (1, "LLVM ERROR: out of memory"), (1, "MemoryError")],
)
def test_a_loader_that_ended_for_want_of_memory_names_that_reason(code: int, messages: str) -> None:
    assert "not enough memory" in (why_loader_ended(code, messages) or "")


def test_a_loader_that_was_killed_ends_in_a_sentence_about_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "memory_limit_bytes", lambda *_: None)
    killed = SimpleNamespace(returncode=-9, stdout="", stderr="")
    monkeypatch.setattr(child, "run_tool", lambda *_, **__: killed)
    monkeypatch.setattr(capture, "_remove_incomplete", lambda _: None)
    monkeypatch.setattr(capture.os, "geteuid", lambda: 0)
    with pytest.raises(ShortNow, match=r"compiler was killed.*memory is short.*not enough memory"):
        capture.Capture.attach(VOLUME, CaptureOptions(), tmp_path / "pins")
    assert why_loader_ended(1, "error: unknown type name") is None


# The verifier


def test_a_kernel_whose_verifier_refuses_payload_goes_on_with_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[int, int]] = []

    class Programs:
        def __init__(self, macros: dict[str, int]) -> None:
            built.append((macros["PYDBT_PAYLOAD"], macros["LOOP_HELPER"]))

        def load(self, programs: dict[str, str]) -> None:
            raise VerifierRefused(f"the kernel refuses program {next(iter(programs))}: too large")

        def close(self) -> None:
            closed.append(self)

    closed: list[Programs] = []
    build: Any = Programs
    monkeypatch.setattr(layout, "payload_macros", lambda _: {})
    monkeypatch.setattr(layout, "_has_loop", lambda _: True)
    btf = Btf.of_running_kernel()
    _, config, _, reason, watched = loader._build(btf, build, VOLUME, CaptureOptions(), pins.PROGRAMS)
    assert len(closed) == 1 + len(layout.STEP_BUDGETS), "what was refused takes no memory"
    assert built == [(1, 1), *[(1, 0)] * len(layout.STEP_BUDGETS), (0, 0)] and not config["payload"]
    assert not watched and "the kernel refuses program" in reason and isinstance(config, np.ndarray)


def test_a_failure_of_the_compiler_is_no_refusal_of_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> Any:
        raise MachineError("bcc cannot compile the capture programs")

    monkeypatch.setattr(layout, "payload_macros", lambda _: {})
    with pytest.raises(MachineError, match="cannot compile"):
        loader._build(Btf.of_running_kernel(), fails, VOLUME, CaptureOptions(), pins.PROGRAMS)


# The kernel, and the machine


def test_a_block_layer_that_is_not_known_names_the_kernel_that_is_needed() -> None:
    def lacks(*_: object) -> None:
        raise KeyError("struct request_queue has no member disk")

    kernel: Any = SimpleNamespace(tracepoint_arguments=lacks, release="5.10.0-32-amd64")
    with pytest.raises(
        MachineError, match=r"needs Linux 5\.15 or later.*of 5\.10\.0-32-amd64 .*no member disk.*Debian 12"
    ):
        layout.kernel_macros(kernel)


def test_a_kernel_without_btf_is_not_told_to_take_one_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"Debian 12, Ubuntu 24\.04"):
        Btf.of_running_kernel(tmp_path / "vmlinux")


def test_a_machine_that_may_reorder_stores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(MachineError, match="x86-64 only: on aarch64"):
        syscalls.map_create(syscalls.MAP_TYPE_ARRAY, 4, 4, 1, "pydbt_test")


def test_lockdown_is_named_where_it_is_the_reason(tmp_path: Path) -> None:
    place = tmp_path / "lockdown"
    assert lockdown_words(place) == ""
    for text, named in (("[none] integrity confidentiality", False), ("none [integrity] confidentiality", False),
                        ("none integrity [confidentiality]", True)):  # fmt: skip
        place.write_text(text)
        assert ("lockdown=integrity" in lockdown_words(place)) == named


def test_the_value_of_an_atomic_addition_is_used_in_one_place_only() -> None:
    """LLVM 20 and later refuse it everywhere else."""
    used = [
        (path.name, line.strip())
        for path in sorted(SOURCE.parent.glob("*.[ch]"))
        for line in path.read_text().splitlines()
        if re.search(r"(=|return|\(|,)\s*__sync_fetch_and_\w+\(.*,", line) and not line.lstrip().startswith("*")
    ]
    assert used == [("kernel_fixes.h", "return __sync_fetch_and_add(counter, value);")]
