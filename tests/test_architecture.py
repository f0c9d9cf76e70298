"""The shape of the code: core decides and touches nothing, rooms do not reach into each other, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "pydbt"
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = [path for path in MODULES if path.is_relative_to(PACKAGE / "core")]
LAB = sorted((PROJECT / "tests/lab").rglob("*.py"))
PACKAGING = sorted((PROJECT / "packaging").rglob("*.py"))

BANNED_IN_CORE = {
    "asyncio", "ctypes", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib", "random", "select", "selectors",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time",
}  # fmt: skip
BANNED_CALLS_IN_CORE = {"open", "print", "input", "exec", "eval", "__import__"}
# What touches the machine and is needed by several rooms; it may be imported by them, and imports core alone.
GROUND = "posix"
# Only these may import more than one other room, and none of them one that stands behind it.
MEETING_ROOMS = ("controller", "dashboard", "cli")
MAX_LINES = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def imports_of(path: Path) -> Iterator[str]:
    """Full names of what a module imports, relative imports made absolute."""
    package = ".".join(path.relative_to(PROJECT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
                yield from (".".join(filter(None, (base, module, alias.name))) for alias in names)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_nothing_that_touches_the_world_and_no_other_room(path: Path) -> None:
    for name in imports_of(path):
        assert name.split(".")[0] not in BANNED_IN_CORE, f"{name_of(path)} imports {name}"
        own = name.split(".")[0] != "pydbt" or name.startswith("pydbt.core")
        assert own, f"{name_of(path)} imports {name}: core imports no other room"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_opens_and_prints_nothing(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS_IN_CORE, f"{name_of(path)} line {node.lineno} calls {node.func.id}"


def test_a_room_imports_core_and_posix_alone_and_only_the_meeting_rooms_import_others() -> None:
    for path in MODULES:
        room = room_of(path)
        if room in MEETING_ROOMS or not room:
            continue
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("pydbt.")} - {room, "core", GROUND}
        assert not rooms, f"{name_of(path)} imports from {sorted(rooms)}: only {list(MEETING_ROOMS)} may"


def test_a_meeting_room_imports_none_that_comes_after_it() -> None:
    for path in MODULES:
        if (room := room_of(path)) in MEETING_ROOMS:
            later = MEETING_ROOMS[MEETING_ROOMS.index(room) + 1 :]
            found = [name for name in imports_of(path) if name.split(".")[:2] in [["pydbt", one] for one in later]]
            assert not found, f"{name_of(path)} imports {found}, which comes after {room}"


@pytest.mark.parametrize("path", [*MODULES, *LAB, *PACKAGING], ids=name_of)
def test_a_module_is_short_enough_to_read_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES, f"{name_of(path)} has more than {MAX_LINES} lines: split it by concept"
    assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no module docstring"


# The calls of a brain's parts that change nothing: all that the shell may call past ``handle``, with what the fan-out offers.
READING = {
    "any", "blocks", "copy", "extents", "oldest_arrival", "out_of_sync_map", "progress", "resume_block",
    "deadline", "report", "shortage", "status", "tolist", "total", "unsynchronized_map",
}  # fmt: skip
# Gives up its own mark that there is more to write down: the one move that the shell of the primary asks of a part. On the
# secondary the watch of the primary outlives its brains, and hears from the shell what that has written down.
HANDED_OVER = {"take_grown", "note_handover", "note_gate_question"}
SHELLS = [path for side in ("primary", "secondary") for path in sorted((PACKAGE / "controller" / side).glob("*.py"))]


_OF_A_BRAIN = re.compile(r"\bbrain\.|\b_brain\.|\bbrain$|_brain$|\bbrains$|\bbrains\.values\(\)$")


def _bindings(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each name that is bound, and to what: also one of a tuple, and the variable of a loop."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            yield node.target, node.iter
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    yield from zip(target.elts, node.value.elts, strict=False)
                else:
                    yield target, node.value


def _is_lent(value: ast.expr) -> bool:
    text = ast.unparse(value)
    return bool(_OF_A_BRAIN.search(text)) and (not isinstance(value, ast.Call) or text.endswith("brains.values()"))


def writes_into_a_brain(source: str, used: set[str] | None = None) -> list[str]:
    """The places that change a brain past ``handle``: as text, in the order of the source. ``used`` gets the calls that read."""
    tree, found = ast.parse(source), []
    lent = {target.id for target, value in _bindings(tree) if isinstance(target, ast.Name) and _is_lent(value)}
    for node in sorted(
        (one for one in ast.walk(tree) if isinstance(one, ast.stmt | ast.expr)), key=lambda one: one.lineno
    ):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        called = [node.func] if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else []
        for place in [*filter(lambda one: isinstance(one, ast.Attribute), targets), *called]:
            chain = ast.unparse(place).split(".")
            reached = {"brain", "_brain", *lent} & set(chain[:-1])
            if not reached:
                continue
            if place not in called or chain[-1] not in {"handle", *READING, *HANDED_OVER}:
                found.append(ast.unparse(place))
            elif used is not None:
                used.add(chain[-1])
    return found


def test_code_that_changes_a_brain_past_its_events_is_found() -> None:
    source = (
        "def f(self, peer):\n"
        "    kept = self._brain.state.left_out\n"
        "    kept.grew = False\n"
        "    peer.brain.quiet.retire(1.0)\n"
        "    self._brain.state.staged.copy()\n"
        "    peer.brain.state.sequence += 1\n"
        "    last, verifier = 1, self._brain.verifier\n"
        "    verifier.cancel()\n"
        "    for one in self.volume.brains:\n"
        "        one.state.lost = 0\n"
    )
    assert writes_into_a_brain(source) == [
        "kept.grew", "peer.brain.quiet.retire", "peer.brain.state.sequence", "verifier.cancel", "one.state.lost",
    ]  # fmt: skip


@pytest.mark.parametrize("path", SHELLS, ids=name_of)
def test_the_shell_changes_a_brain_by_events_alone(path: Path) -> None:
    assert not writes_into_a_brain(path.read_text()), f"{name_of(path)}: make it an event, or a method of the fan-out"


def test_each_call_that_only_reads_a_brain_is_made_somewhere() -> None:
    used: set[str] = set()
    for path in SHELLS:
        writes_into_a_brain(path.read_text(), used)
    assert used >= READING | HANDED_OVER, (
        f"no part of the shell calls {sorted((READING | HANDED_OVER) - used)} any more"
    )


def test_only_posix_loads_the_c_library() -> None:
    isolated = {PACKAGE / "device" / "suspender.py"}  # runs with `python -I -S`, and can import nothing of the package
    for path in MODULES:
        if room_of(path) == GROUND or path in isolated:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert name not in ("CDLL", "cdll", "PyDLL"), f"{name_of(path)}: use posix.libc"


def test_the_program_imports_nothing_of_the_tests_and_their_bench_imports_no_test() -> None:
    for path in (*MODULES, *LAB):
        foreign = [name for name in imports_of(path) if name.split(".")[0] in {"tests", "pytest"}]
        if path in LAB:
            foreign = [name for name in foreign if not name.startswith("tests.lab.")]
        assert not foreign, f"{name_of(path)} imports {foreign}"


def test_the_wheel_holds_the_program_alone() -> None:
    setuptools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set(find_namespace_packages(str(PROJECT), include=setuptools["packages"]["find"]["include"]))
    assert {"pydbt", "pydbt.core", "pydbt.cli"} <= found
    assert not [name for name in found if name.split(".")[0] != "pydbt"]
    assert set(setuptools) == {"packages", "package-data", "dynamic"}, "nothing else is named for the wheel"
    assert set(setuptools["package-data"]) == {"pydbt.bpf", "pydbt.dashboard"}, "programs for the kernel, and pages"


def test_a_status_is_asked_for_without_any_package() -> None:
    """Tests ask machines with a slow processor every second; numpy alone would cost a second there each time."""
    ask = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from pydbt.controller.control import call"
    done = subprocess.run([sys.executable, "-S", "-c", ask], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
