"""A text of TOML is read to its end, whatever is wrong on the way; every key is known by its line."""

from __future__ import annotations

import pytest

from pydbt.core.configured.toml_text import MAX_FAULTS, read_toml


def test_a_right_text_has_its_tables_and_lines() -> None:
    read = read_toml('# first\n[run]\nsource = "/dev/a"\n\n[wait]\ntimeout = 5\n')
    assert read.whole and not read.broken
    assert read.tables == {"run": {"source": "/dev/a"}, "wait": {"timeout": 5}}
    assert read.line_of("run", "source") == 3 and read.line_of("wait") == 5 and read.line_of("wait", "timeout") == 6


def test_a_key_that_is_not_there_has_the_line_of_its_table_and_an_unknown_table_none() -> None:
    read = read_toml("\n[run]\n")
    assert read.line_of("run", "source") == 2
    assert read.line_of("secondary") == 0


def test_other_ways_to_write_a_key_have_its_line_too() -> None:
    read = read_toml('run.source = "x"\n"wait" = { timeout = 5 }\n[ "down" ]\n\'state\' = "y"\n')
    assert read.line_of("run", "source") == 1
    assert read.line_of("wait", "timeout") == 2
    assert read.line_of("down", "state") == 4


def test_a_key_inside_a_long_text_is_none() -> None:
    read = read_toml('[run]\nnote = """\nsource = 1\n"""\nsource = "x"\n')
    assert read.line_of("run", "source") == 5


def test_every_broken_line_is_told_and_the_rest_is_read() -> None:
    read = read_toml('[run]\nsource = /dev/vdb\nstate = "/x\nsecondary = "a:1"\nsecondary = "b:1"\n')
    assert read.whole
    assert read.tables == {"run": {"secondary": "a:1"}}
    told = [(one.line, one.table, one.key, one.value) for one in read.broken]
    assert told[:2] == [(2, "run", "source", "/dev/vdb"), (3, "run", "state", '"/x')]
    assert [one.line for one in read.broken] == [2, 3, 5]
    assert all("is not TOML: " in one.words and "expected KEY = VALUE" in one.words for one in read.broken)


def test_a_line_that_is_no_setting_ends_the_reading() -> None:
    read = read_toml('[run\nsource = "x"\n')
    assert not read.whole and read.tables == {}
    assert [(one.line, one.key) for one in read.broken] == [(1, "")]
    ends = read_toml('x = """abc')
    assert not ends.whole and ends.broken[0].line in (0, 1)


def test_the_faults_of_a_text_that_is_something_else_are_bounded() -> None:
    read = read_toml("".join(f"key{number} = /x\n" for number in range(100)))
    assert len(read.broken) == MAX_FAULTS and not read.whole


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c", "\r"])
def test_a_comment_goes_to_the_end_of_its_line_whatever_other_programs_take_for_one(end: str) -> None:
    read = read_toml(f'[run]\n# note{end}insecure = true\nsource = "/dev/a"\n')
    assert "insecure" not in read.tables.get("run", {}) and read.line_of("run", "source") == 3


def test_lines_of_other_systems_end_as_well() -> None:
    read = read_toml('[run]\r\nsource = "/dev/a"\r\nstate = /x\r\n')
    assert read.tables == {"run": {"source": "/dev/a"}} and [one.line for one in read.broken] == [3]


@pytest.mark.parametrize(
    ("text", "line"), [(f"[run]\nlog-size = {'9' * 5000}\n", 2), (f"[run]\nsource = {'[' * 100_000}\n", 0)]
)
def test_a_value_that_no_program_can_read_is_told_in_words(text: str, line: int) -> None:
    read = read_toml(text)
    (found,) = read.broken
    assert not read.whole and found.line == line and found.words


def test_a_null_byte_is_a_fault_of_its_line_and_the_rest_is_read() -> None:
    read = read_toml(
        'x = "\\u0000"\n[run]\nsource = "/dev/\\u0000a"\npeer = ["a", "\\u0000"]\nstate = "/s"\n[hooks]\nany = "/h"\n'
    )
    assert read.whole and read.tables == {"run": {"state": "/s"}, "hooks": {"any": "/h"}}
    assert [(one.line, one.table, one.key) for one in read.broken] == [
        (1, "", "x"),
        (3, "run", "source"),
        (4, "run", "peer"),
    ]
    assert all("null byte" in one.words and "\0" not in one.value for one in read.broken)
