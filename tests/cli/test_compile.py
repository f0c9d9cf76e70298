"""``controller compile``: which kernel it is for, and one sentence for what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.cli.commands import compile as command
from pydbt.cli.group import execute
from pydbt.core.errors import MachineError
from pydbt.kernel.tracing.ahead import Compiled


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The images that programs were compiled for; nothing is."""
    images: list[Path | None] = []

    def compile_ahead(image: Path | None) -> Compiled:
        images.append(image)
        return Compiled("6.1.0-44-amd64", 7 * (len(images) == 1), 7 * (len(images) > 1))

    def image_of(release: str) -> Path:
        if not release:
            raise MachineError("no kernel of that name")
        return Path(f"/boot/vmlinuz-{release}")

    monkeypatch.setattr(command, "compile_ahead", compile_ahead)
    monkeypatch.setattr(command, "image_of", image_of)
    return images


def test_programs_are_compiled_for_the_running_kernel_an_installed_one_or_an_image(
    asked: list[Path | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["compile"]) == 0
    assert "compiled for 6.1.0-44-amd64: 7 sets of programs, kept in /var/cache/pydbt" in capsys.readouterr().out
    assert execute(["compile", "--kernel", "6.1.0-44-amd64"]) == 0
    assert "nothing to compile: the programs for 6.1.0-44-amd64 are in" in capsys.readouterr().out
    assert execute(["compile", "--image", "/mnt/vmlinuz"]) == 0
    assert asked == [None, Path("/boot/vmlinuz-6.1.0-44-amd64"), Path("/mnt/vmlinuz")]


def test_a_name_that_a_script_left_empty_is_not_the_running_kernel(asked: list[Path | None]) -> None:
    assert execute(["compile", "--kernel", ""]) == 3 and not asked


def test_two_kernels_are_wrong_usage(asked: list[Path | None], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["compile", "--kernel", "6.1", "--image", "/mnt/vmlinuz"]) == 2
    assert "both name a kernel" in capsys.readouterr().err and not asked


def test_a_compilation_that_fails_ends_with_the_exit_code_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(image: Path | None) -> Compiled:
        raise MachineError("no kernel headers are installed")

    monkeypatch.setattr(command, "compile_ahead", refused)
    assert execute(["compile"]) == 3
    assert execute(["compile", "--kernel", "1.2.3-none"]) == 3
    told = capsys.readouterr().err
    assert "no kernel headers are installed" in told and "no kernel 1.2.3-none is installed here" in told
