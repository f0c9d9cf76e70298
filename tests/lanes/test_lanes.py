"""The lanes themselves: what failed is counted and shown, what ran nothing fails, and nothing outlives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.patience import wait_until
from tests.lanes import covered, gate, runner
from tests.lanes.__main__ import named
from tests.lanes.part import ROOT, Counts, Outcome, Part, of_a_closing_line, of_a_command, of_pytest, pytest_part
from tests.lanes.runner import run, summary


def python(name: str, code: str, **limits: float) -> Part:
    return Part(name, ("{python}", "-c", code), of_a_command, **limits)


def test_the_closing_line_counts_all_parts_and_a_failure_is_named_with_its_output(capfd):
    results = run([python("good", "pass"), python("bad", "print('words of it'); raise SystemExit(3)")])
    assert summary(results, 1.0) == 1
    said = capfd.readouterr().out
    assert said.splitlines()[-1] == "1 passed, 1 failed"
    assert "failed: bad" in said and "    words of it" in said


def test_without_a_failure_the_exit_code_is_zero_and_without_a_part_it_is_not():
    assert summary(run([python("good", "pass")]), 1.0) == 0
    assert summary([], 1.0) == 1


def test_a_part_that_is_not_over_in_time_is_ended_and_fails():
    (result,) = run([python("slow", "import time; time.sleep(600)", limit_seconds=0.5)])
    assert result.failed and result.seconds < 60


@pytest.mark.parametrize("idle", [False, True])
def test_a_core_that_does_nothing_gets_the_next_part_although_none_is_free(idle, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "IDLE_LOOK_S", 0.05)
    monkeypatch.setattr(runner, "idle_seconds", time.monotonic if idle else lambda: 0.0)
    waits = f"import time, pathlib\nwhile not pathlib.Path({str(tmp_path / 'made')!r}).exists(): time.sleep(0.05)"
    makes = f"open({str(tmp_path / 'made')!r}, 'w').close()"
    limit = 60 if idle else 1
    waiting, _ = run([python("waits", waits, cores=os.cpu_count(), limit_seconds=limit), python("makes", makes)])
    assert waiting.failed is not idle


def test_compiled_modules_are_kept_whatever_was_asked(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (result,) = run([python("compiled", "import sys; sys.exit(sys.dont_write_bytecode)")])
    assert not result.failed


@pytest.mark.parametrize(
    ("output", "code", "counts"),
    [
        ("3 passed, 0 failed\n", 0, Counts(3)),
        ("3 passed, 1 failed, 2 skipped\n", 1, Counts(3, 1, 2)),
        ("0 passed, 0 failed\n", 0, Counts(0, 1)),
        ("3 passed, 0 failed\n", 1, Counts(3, 1)),
        ("it never came to an end", 0, Counts(0, 1)),
    ],
)
def test_a_program_that_ran_nothing_or_ended_badly_has_failed(output, code, counts, tmp_path):
    assert of_a_closing_line(Outcome(code, output, tmp_path)) == counts


def test_pytest_s_own_report_is_counted(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_1(): pass\ndef test_2(): assert 0\n@pytest.fixture\ndef broken(): assert 0\n"
        "def test_3(broken): pass\n@pytest.mark.skip\ndef test_4(): pass\n"
    )
    (some, none) = run(
        [pytest_part("some", str(tmp_path)), pytest_part("none", str(tmp_path), "-k", "nothing_has_this_name")]
    )
    assert some.counts == Counts(1, 2, 1)
    assert none.counts == Counts(0, 1)


def test_the_tests_that_failed_are_named_at_the_end_and_a_folder_keeps_what_each_part_said(tmp_path, capfd):
    lines = [
        "FAILED tests/some/test_one.py::test_it[1] - assert 0",
        "ERROR tests/some/test_two.py::test_that - OSError",
    ]
    (logs := tmp_path / "logs").mkdir()
    (tmp_path / "test_some.py").write_text("def test_1(): pass\n")
    bad = python("bad", f"print({chr(10).join(lines)!r}); raise SystemExit(1)")
    assert summary(run([bad, pytest_part("some", str(tmp_path / "test_some.py"))], logs), 1.0) == 1
    said = capfd.readouterr().out.splitlines()
    assert [line.strip() for line in said[said.index("failed: bad") + 1 :][:2]] == lines
    assert lines[0] in (logs / "bad.log").read_text()
    assert 'name="test_1"' in (logs / "some.xml").read_text()


def test_a_report_that_is_missing_is_a_failure(tmp_path):
    assert of_pytest(Outcome(0, "", tmp_path)) == Counts(failed=1)


def takes_down(made: Path, seconds: float) -> str:
    """A program that has made this file, with its process in it, and needs this long to take it down again."""
    return (
        f"import os, time; open({str(made)!r}, 'w').write(str(os.getpid()))\n"
        f"try: time.sleep(600)\nfinally: time.sleep({seconds}); os.unlink({str(made)!r})"
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_interrupted_it_ends_what_it_started_and_leaves_nothing(how, tmp_path):
    made = {"short": tmp_path / "short", "long": tmp_path / "long"}
    codes = {"short": takes_down(made["short"], 0.5), "long": takes_down(made["long"], 2)}
    program = (
        "from tests.lanes.__main__ import run_parts\nfrom tests.lanes.test_lanes import python\n"
        f"raise SystemExit(run_parts([python(name, code, cores=0) for name, code in {codes!r}.items()]))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)
    try:
        for file in made.values():
            wait_until(lambda file=file: file.exists() and file.read_text(), "the part runs", 60)
        started = [int(file.read_text()) for file in made.values()]
        process.send_signal(how)
        assert process.wait(60) == 130
        assert not any(Path(f"/proc/{one}").exists() for one in started)
        assert not list(tmp_path.iterdir())
    finally:
        process.kill()
        process.wait()


# All tests are collected once, with nothing left out; then pytest's own hooks choose from them, as for each of the command lines.
COLLECT = """
import contextlib, json, pathlib, sys, pytest
from _pytest import main, mark

class Found:
    def pytest_collection_finish(self, session):
        collects = session.config.option
        self.answer = [chosen(session, words) for words in json.loads(sys.argv[1])]
        session.config.option = collects

def chosen(session, words):
    config = session.config
    config.option = config._parser.parse(words)
    places = [config.rootpath / place for place in config.option.file_or_dir]
    kept = {}
    def is_kept(path):
        if path not in kept:
            above = any(place in path.parents for place in places) and path.parent != path
            kept[path] = not main.pytest_ignore_collect(path, config) and (not above or is_kept(path.parent))
        return kept[path]
    items = [one for one in session.items if any(one.path.is_relative_to(place) for place in places) and is_kept(one.path)]
    mark.deselect_by_mark(items, config)
    main.pytest_collection_modifyitems(items, config)
    return [one.nodeid for one in items]

found = Found()
with contextlib.redirect_stdout(sys.stderr):
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests"], plugins=[found])
print(json.dumps(found.answer))
"""


def test_every_test_belongs_to_exactly_one_part_of_the_gate():
    """What pytest collects in the parts together is what it collects of all tests, the heavy ones of the gate left out."""
    assert any("tests.lanes.covered" in part.command for part in gate.parts()), "which is tests/core, with its branches"
    asked = [["tests", *gate.GATE_TESTS], ["tests/core", *gate.GATE_TESTS]]
    for part in gate.parts():
        if "pytest" in part.command:
            words = part.command[part.command.index("pytest") + 1 :]
            own = [word for word in words if not word.startswith(("--junitxml", "--durations", "-q"))]
            asked.append([*own, "-n0"])
    done = subprocess.run([sys.executable, "-c", COLLECT, json.dumps(asked)], cwd=ROOT, capture_output=True, text=True)
    everything, *parts = json.loads(done.stdout)
    expected = [test for test in everything if not any(word in test for word in gate.OWN_PARTS_OF_THE_SIMULATION)]
    assert len(expected) > 1000
    assert sorted(test for part in parts for test in part) == sorted(expected)


def test_a_run_that_is_stopped_shows_how_far_its_parts_had_come(tmp_path):
    code = f"print('as far as this'); open({str(tmp_path / 'there')!r}, 'w').close(); import time; time.sleep(600)"
    program = (
        "from tests.lanes.__main__ import run_parts\nfrom tests.lanes.test_lanes import python\n"
        f"raise SystemExit(run_parts([python('long', {code!r})]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        wait_until((tmp_path / "there").exists, "the part runs", 60)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "long was not over; its last lines:\n    as far as this" in said


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(SystemExit, match="no such part"):
        named(gate.parts(), ["nonsense"])


def test_a_module_of_core_with_too_few_branches_taken_is_named():
    def module(covered: int, there: int) -> dict[str, dict[str, int]]:
        return {"summary": {"covered_branches": covered, "num_branches": there}}

    report = {"files": {"a.py": module(84, 100), "b.py": module(85, 100), "c.py": module(0, 0)}}
    assert covered.too_low(report) == ["a.py: 84 %"]
