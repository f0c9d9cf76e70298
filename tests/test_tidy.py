"""The house is kept in order: no circles of imports, no dead code, short functions, one meaning per public name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "pydbt"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION_LINES = 70


def module_name(path: Path) -> str:
    """The dotted name of a module; a package's is that of its folder."""
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


NAMES = {module_name(path) for path in MODULES}


def imported_by(path: Path) -> Iterator[str]:
    """Modules of the program that this one imports, anywhere in it: inside functions and for type checks too."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in NAMES)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    full = f"{module}.{alias.name}"
                    if full in NAMES:
                        yield full
                    elif module in NAMES:
                        yield module


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in arrows.get(name, ()):
                found.append(sorted(group))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circles({module_name(path): set(imported_by(path)) for path in MODULES})
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def folder_of(name: str) -> str:
    return name if (PROJECT / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]


def test_no_folders_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        own = folder_of(module_name(path))
        arrows[own] |= {folder_of(name) for name in imported_by(path)} - {own}
    found = circles(arrows)
    assert not found, "\n".join(" <-> ".join(group) for group in found)


# Folders of core, the lowest first -> those that each one imports. All of them import the modules at its top.
FOLDERS_OF_CORE: dict[str, set[str]] = {
    "blocks": set(),
    "protocol": {"blocks"},
    "tracking": {"blocks", "protocol"},
    "transactions": {"blocks", "tracking"},
    "secondary": {"blocks", "protocol"},
    "configured": {"protocol", "secondary"},
    "primary": {"blocks", "configured", "protocol", "tracking", "transactions"},
    "volume": {"blocks", "primary", "protocol", "tracking"},
    "cluster": {"secondary"},
    "seen": {"blocks", "primary", "protocol"},
}  # fmt: skip


def folder_of_core(name: str) -> str:
    """The folder of a module of core; empty for one at its top, or outside of core."""
    below = name.removeprefix("pydbt.core.").partition(".")[0]
    return below if name.startswith("pydbt.core.") and (PACKAGE / "core" / below).is_dir() else ""


def test_a_folder_of_core_imports_those_below_it_that_it_needs_and_no_other() -> None:
    found: dict[str, set[str]] = {name: set() for name in FOLDERS_OF_CORE}
    for path in MODULES:
        if not (own := folder_of_core(module_name(path))):
            continue
        found[own] |= {other for name in imported_by(path) if (other := folder_of_core(name))} - {own}
    assert found == FOLDERS_OF_CORE
    order = list(FOLDERS_OF_CORE)
    assert all(order.index(below) < order.index(one) for one, others in found.items() for below in others)


def test_a_module_at_the_top_of_core_imports_none_of_its_folders() -> None:
    for path in (PACKAGE / "core").glob("*.py"):
        assert not [name for name in imported_by(path) if folder_of_core(name)], path.name


def reached_from(start: str, arrows: dict[str, set[str]]) -> set[str]:
    """Everything that a module imports, directly or by way of others."""
    found: set[str] = set()
    left = [start]
    while left:
        new = arrows.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def test_modules_that_others_import_are_reached() -> None:
    assert reached_from("a", {"a": {"b"}, "b": {"c", "a"}, "d": {"e"}}) == {"a", "b", "c"}


def test_nothing_that_people_see_leads_to_a_brain() -> None:
    """A page or metric is made of a status, which has one form for both roles, and not of the inside of a brain."""
    arrows = {module_name(path): set(imported_by(path)) for path in MODULES}
    for name in arrows:
        if folder_of_core(name) == "seen":
            brains = {one for one in reached_from(name, arrows) if one.endswith((".brain", ".state", ".fanout"))}
            assert not brains, f"{name} leads to {sorted(brains)}"


def test_no_function_is_longer_than_a_page() -> None:
    long = [
        f"{path.relative_to(PROJECT)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long, f"split by what is done: {long}"


# Names that are read by nobody in the program, and why they stay.
UNREAD = {
    **dict.fromkeys(
        [
            "show_help",
            "compile_for_kernel",
            "switchover",
            "configcheck",
            "arm",
            "disarm",
            "protect",
            "dashboard",
            "trace",
        ],
        "a command: the program finds it by its name",
    ),
    **dict.fromkeys(["init", "create", "revoke", "choose", "rejoin", "agent"], "a command: click calls it"),
    **dict.fromkeys(
        ["newest_transaction", "held_by", "not_held_by", "perhaps_held_by", "before_boot", "resynchronized"],
        "a key of the status: programs read it",
    ),
    "raiseExceptions": "logging reads it",
    "dropped_lines": "tests of the stream compare it with what came through",
    "num_tickets": "ssl reads it",
    "WHOLE_DEVICE": "a flag of BEGIN that the wire defines",
    "TOLD_BY_THE_COMMAND": "the reference of events is made of it",
    "unsent_bytes": "the simulation waits until it is 0",
    "silent_seconds": "an entry of the secondary's report, which is made of all fields",
    **dict.fromkeys(
        [
            "bounds_seconds",
            "expires",
            "verified",
            "discarded",
            "repaired",
            "margin_sectors",
            "unseen_completions_sectors",
            "timed_every",
        ],
        "an entry of a report, which is made of all fields",
    ),
    **dict.fromkeys(
        ["install_signal_handlers", "capture_signals"], "uvicorn calls it, the one or the other by its version"
    ),
    **dict.fromkeys(["should_exit", "force_exit", "h11_max_incomplete_event_size"], "uvicorn reads it"),
    "formatter_class": "click reads it",
    **dict.fromkeys(["selectable", "keypress", "original_widget"], "urwid calls or reads it"),
    "atexit": "weakref.finalize reads it",
    **dict.fromkeys(["PREFLUSH", "NO_DATA_OP", "CLIPPED"], "a flag in bpf/record.h"),
    **dict.fromkeys(
        ["losses", "submissions", "unknown_kinds"],
        "an entry of the primary's report, which is made of all fields",
    ),
    "submitted_discard_sectors": "tests of the programs in the kernel compare it with the kernel's own counts",
    **dict.fromkeys(["frozen_ms_last", "writing_out"], "an entry of the primary's report, which is made of all fields"),
    "frozen_ms_max": "an entry of the primary's report, which is made of all fields",
}


@cache
def unread_names() -> dict[str, str]:
    """Names that nothing in the program reads -> where they are. Judged by name: one reader anywhere is enough."""
    done = subprocess.run(
        [sys.executable, "-m", "vulture", "pydbt", "--min-confidence", "60"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        place, _, message = line.partition(": ")
        found[message.split("'")[1]] = place
    return found


def test_no_code_is_dead() -> None:
    found = {name: place for name, place in unread_names().items() if name not in UNREAD}
    assert not found, f"nothing reads these: remove them, or say in UNREAD why they stay: {found}"


def test_every_unread_name_that_stays_is_unread() -> None:
    stale = UNREAD.keys() - unread_names().keys()
    assert not stale, f"these are read, or gone: remove them from UNREAD: {sorted(stale)}"


def unread_here(tree: ast.Module) -> set[str]:
    """Private names of a module's top level that the module itself never reads: nobody else may."""
    defined = {name for name in names_at_the_top(tree) if name.startswith("_") and not name.startswith("__")}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return defined - read


def test_a_private_name_that_its_module_does_not_read_is_found() -> None:
    tree = ast.parse("_LEFT = 1\n_USED: int = 2\ndef _gone(): return _USED\n__all__ = []")
    assert unread_here(tree) == {"_LEFT", "_gone"}


def test_each_module_reads_its_own_private_names() -> None:
    found = {module_name(path): names for path in MODULES if (names := unread_here(tree_of(path)))}
    assert not found, f"remove them: a name that begins with _ is read in its module, or nowhere: {found}"


# The same name in several modules, where the folder or the role tells which one is meant.
TWINS = {
    "main": "the entry of each program",
    **dict.fromkeys(
        ["CloseConnection", "Connected", "Disconnected", "Effect", "Event", "Log", "Persist", "Tick"],
        "the primary's and the secondary's events and effects",
    ),
    **dict.fromkeys(["demote", "invalidate", "issue"], "a command and what it does"),
    "PLAN": "of each set of observing programs: the loader finds it by its name",
}


def names_at_the_top(tree: ast.Module) -> Iterator[str]:
    """What a module defines: classes, functions, and values that have a name."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


@cache
def homes_of_public_names() -> dict[str, list[str]]:
    """Public names that several modules define, and these modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for name in names_at_the_top(tree_of(path)):
            if not name.startswith("_"):
                homes[name].append(module_name(path))
    return {name: where for name, where in homes.items() if len(where) > 1}


def test_a_public_name_has_one_meaning() -> None:
    several = {name: where for name, where in homes_of_public_names().items() if name not in TWINS}
    assert not several, f"give each meaning its own name: {several}"


def test_every_twin_has_several_homes() -> None:
    stale = TWINS.keys() - homes_of_public_names().keys()
    assert not stale, f"these have one home, or none: remove them from TWINS: {sorted(stale)}"


def test_a_file_of_a_state_directory_is_opened_as_one_of_this_program_alone() -> None:
    """A link, a pipe or a file of another user may lie in its place: ``read_own`` and ``OPEN_OWN`` know what to do then."""
    for path in sorted((PACKAGE / "store").rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            place = f"{module_name(path)}, line {node.lineno}"
            assert called not in ("open", "io.open") and not called.endswith((".read_bytes", ".read_text")), place
            if called.endswith(".open"):
                assert called == "os.open" and "OPEN_OWN" in ast.unparse(node), place


# A test that cannot run on a machine fails. These may be skipped, for want of something that no package brings.
SKIPPED = {
    "tests/controller/test_hook_runner.py": "another user than root runs the tests",
    "tests/device/test_freeze.py": "the root file system lies on no block device",
    "tests/end_to_end/test_epochs_lvm.py": "the kernel has no device-mapper",
}
ASKING = {"exists", "lexists", "access", "which"}


def asked_when_loaded(node: ast.AST) -> Iterator[str]:
    """Questions about the machine that are asked before any test runs: with their answer a test could go missing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr in ASKING:
            yield child.func.attr
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in child.decorator_list:
                yield from asked_when_loaded(ast.Expr(decorator))
        elif not isinstance(child, ast.Lambda):
            yield from asked_when_loaded(child)


def test_a_question_that_could_hide_a_test_is_found() -> None:
    hidden = (
        "import shutil\nCASES = ['a'] if shutil.which('a') else []\ndef test_it() -> None:\n    shutil.which('b')\n"
    )
    marked = "@mark(Path('/a').exists())\ndef test_it() -> None: ...\n"
    assert list(asked_when_loaded(ast.parse(hidden))) == ["which"]
    assert list(asked_when_loaded(ast.parse(marked))) == ["exists"]


def test_no_test_is_missing_or_skipped_where_something_is_not_installed() -> None:
    files = sorted((PROJECT / "tests").rglob("test_*.py")) + sorted((PROJECT / "tests").rglob("conftest.py"))
    words = {"skip", "skipif", "importorskip"}
    skipped = {
        str(path.relative_to(PROJECT))
        for path in files
        if any(isinstance(node, ast.Attribute) and node.attr in words for node in ast.walk(tree_of(path)))
    }
    assert skipped == SKIPPED.keys()
    assert {
        str(path.relative_to(PROJECT)): found for path in files if (found := [*asked_when_loaded(tree_of(path))])
    } == {}
