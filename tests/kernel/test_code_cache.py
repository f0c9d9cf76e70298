"""Compiled code is kept for the next start, used only when it is right and safe, and made anew otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from pydbt.kernel import code_cache
from pydbt.kernel.code import Code, MapShape
from tests.lab.disks import loop_device
from tests.lab.raw import write_blocks
from tests.lab.tracking import PAYLOAD, Rebuilt, tracked, wait_quiet

TEXT, MACROS = "int pydbt_submit()", {"OFF_bio_bi_opf": 16, "PYDBT_PAYLOAD": 1}
CODE = Code({"pydbt_submit": bytes(16)}, (MapShape("pydbt_bits", 2, 4, 8, 1, 1024),))


class Compiler:
    """Counts how often it was needed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Code:
        self.times += 1
        return CODE


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The compiler's library, in a place where it can be changed."""
    library = tmp_path / "libbcc.so.0"
    library.write_bytes(b"one")
    status = library.stat()
    monkeypatch.setattr(code_cache, "compiler_files", lambda: [(str(library), status.st_size, status.st_mtime_ns)])
    return library


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_the_second_time_nothing_is_compiled(folder: Path, library: Path, compiler: Compiler) -> None:
    assert not code_cache.is_known(TEXT, folder)
    for _ in range(3):
        assert code_cache.code_for(TEXT, MACROS, compiler, folder) == CODE
    assert compiler.times == 1 and code_cache.is_known(TEXT, folder)
    assert folder.stat().st_mode & 0o777 == 0o700 and only_file(folder).stat().st_mode & 0o777 == 0o600


def test_another_text_other_macros_and_another_kernel_are_compiled(
    folder: Path, library: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    code_cache.code_for(TEXT + " ", MACROS, compiler, folder)
    code_cache.code_for(TEXT, MACROS | {"PYDBT_PAYLOAD": 0}, compiler, folder)
    assert compiler.times == 3
    other = SimpleNamespace(release="6.1.0-99", version="#1 SMP", machine="x86_64")
    monkeypatch.setattr(code_cache.os, "uname", lambda: other)
    assert not code_cache.is_known(TEXT, folder)
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 4 and len(list(folder.iterdir())) == 4


def test_another_compiler_compiles(folder: Path, library: Path, compiler: Compiler) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    library.write_bytes(b"another")
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 2 and not code_cache.is_known(TEXT, folder), "the file tells of the first compiler still"


def test_without_a_compiler_what_is_kept_is_used_and_with_one_elsewhere_it_is_not(
    folder: Path, library: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    library.unlink()
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 2, "bcc can be imported: its library lies elsewhere"
    monkeypatch.setattr(code_cache.importlib.util, "find_spec", lambda _: None)
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:70] + b"x" + raw[71:], lambda _: b""])
def test_a_damaged_file_is_made_anew(folder: Path, library: Path, compiler: Compiler, damage: object) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    file = only_file(folder)
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    for _ in range(2):
        assert code_cache.code_for(TEXT, MACROS, compiler, folder) == CODE
    assert compiler.times == 2


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_given_to_the_kernel(
    folder: Path, library: Path, compiler: Compiler, mode: int
) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    only_file(folder).chmod(mode)
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 2 and only_file(folder).stat().st_mode & 0o777 == 0o600


def test_neither_a_folder_nor_a_file_of_another_user_is_used(folder: Path, library: Path, compiler: Compiler) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    os.chown(only_file(folder), 65534, -1)
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    os.chown(folder, 65534, -1)
    for _ in range(2):
        code_cache.code_for(TEXT, MACROS, compiler, folder)
    assert compiler.times == 4
    assert not code_cache.is_known(TEXT, folder)


def test_a_pipe_in_its_place_holds_nobody_up(folder: Path, library: Path, compiler: Compiler) -> None:
    code_cache.code_for(TEXT, MACROS, compiler, folder)
    file = only_file(folder)
    file.unlink()
    os.mkfifo(file)
    assert code_cache.code_for(TEXT, MACROS, compiler, folder) == CODE and compiler.times == 2


def test_where_nothing_can_be_kept_it_is_compiled_each_time(tmp_path: Path, library: Path, compiler: Compiler) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        assert code_cache.code_for(TEXT, MACROS, compiler, tmp_path / "file" / "kept") == CODE
    assert compiler.times == 2


def test_the_oldest_make_room(folder: Path, library: Path, compiler: Compiler) -> None:
    for number in range(code_cache.KEPT_FILES + 3):
        code_cache.code_for(TEXT, {"number": number}, compiler, folder)
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert len(list(folder.iterdir())) == code_cache.KEPT_FILES
    code_cache.code_for(TEXT, {"number": code_cache.KEPT_FILES + 2}, compiler, folder)
    assert compiler.times == code_cache.KEPT_FILES + 3, "the last one is there"


def test_two_that_make_room_at_once_do_not_disturb_each_other(
    folder: Path, library: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that one of them has found is gone before it looks closer: the other one was quicker."""
    monkeypatch.setattr(code_cache, "KEPT_FILES", 1)
    code_cache.code_for(TEXT, {"number": 1}, compiler, folder)
    gone = folder / "0-0.json"

    def found(self: Path, pattern: str) -> Iterator[Path]:
        yield from (gone, *(place for place in self.iterdir() if place.match(pattern)))

    monkeypatch.setattr(Path, "glob", found)
    place = code_cache.missing_place(code_cache.running_kernel(), TEXT, {"number": 2}, folder)
    assert place is not None
    code_cache.keep(place, compiler())
    assert list(folder.iterdir()) == [place]


def test_the_compilers_files_are_those_that_this_process_uses(tmp_path: Path) -> None:
    for name in ("libbcc.so.0.26", "libLLVM-14.so.1", "libclang-cpp.so.14", "libc.so.6", "my libclang notes.txt"):
        (tmp_path / name).write_text(name)
    lines = [f"7f00-7f01 r-xp 0 08:01 1   {tmp_path / name}" for name in os.listdir(tmp_path)]
    maps = tmp_path / "maps"
    others = (
        "7f02-7f03 rw-p 0 00:00 0 \n7ffc-7ffd r-xp 0 00:00 0      [vdso]\n7f04-7f05 r--p 0 08:01 2   /tmp/no\udcfftext"
    )
    maps.write_bytes(os.fsencode("\n".join([*lines, others])))
    found = code_cache.compiler_files(maps)
    assert [Path(path).name for path, _, _ in found] == ["libLLVM-14.so.1", "libbcc.so.0.26", "libclang-cpp.so.14"]
    assert all(size == len(Path(path).name) for path, size, _ in found)


# With the real compiler and the real kernel


def test_a_second_start_and_another_volume_need_no_compiler(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_cache, "FOLDER", folder)
    size_bytes = 8 * MIB
    with loop_device(tmp_path / "first", size_bytes) as first, tracked(first, PAYLOAD) as capture:
        wait_quiet(capture)
    made = only_file(folder)
    content = made.read_bytes()

    without = tmp_path / "without"
    (without / "bcc").mkdir(parents=True)
    (without / "bcc/__init__.py").write_text("raise RuntimeError('the compiler was asked')")
    monkeypatch.setenv("PYTHONPATH", str(without))
    image = np.zeros(2 * size_bytes, np.uint8)
    with loop_device(tmp_path / "second", 2 * size_bytes) as second, tracked(second, PAYLOAD, 8192) as capture:
        assert capture.payload_available
        rebuilt = Rebuilt(capture, image)
        rebuilt.follow(lambda: write_blocks(second, 400))
        rebuilt.check_nothing_lost()
        rebuilt.check_equals(second)
    assert only_file(folder) == made and made.read_bytes() == content


def test_without_a_compiler_and_without_kept_code_the_compiler_is_asked_for(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_cache, "FOLDER", folder)
    (tmp_path / "bcc.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        loop_device(tmp_path / "image", MIB) as device,
        pytest.raises(MachineError, match="python3-bpfcc"),
        tracked(device, PAYLOAD),
    ):
        pass
