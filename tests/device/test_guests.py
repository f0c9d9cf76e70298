"""Virtual machines are found by the modules that they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.device import guests


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_MODULES", "_KVM", "_XEN"):
        monkeypatch.setattr(guests, name, tmp_path / name)
    return tmp_path


def module(machine: Path, name: str, count: str | None) -> None:
    (machine / "_MODULES" / name).mkdir(parents=True)
    if count is not None:
        (machine / "_MODULES" / name / "refcnt").write_text(f"{count}\n")


def test_without_kvm_and_xen_there_are_none(machine: Path) -> None:
    module(machine, "kvm_intel", "3")
    assert not guests.guests_may_run()


@pytest.mark.parametrize(("count", "expected"), [("0", False), ("1", True), (None, True)])
def test_a_guest_holds_the_module_and_a_part_of_the_kernel_counts_nothing(
    machine: Path, count: str | None, expected: bool
) -> None:
    (machine / "_KVM").touch()
    module(machine, "kvm", "1")  # held by the other one
    module(machine, "kvm_amd", count)
    assert guests.guests_may_run() == expected


def test_where_nothing_is_counted_there_may_be_some(machine: Path) -> None:
    (machine / "_KVM").touch()
    assert guests.guests_may_run()


@pytest.mark.parametrize(("words", "expected"), [("control_d\n", True), ("\n", False)])
def test_the_first_domain_of_xen_has_guests(machine: Path, words: str, expected: bool) -> None:
    (machine / "_XEN").write_text(words)
    assert guests.guests_may_run() == expected
