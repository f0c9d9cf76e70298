"""A file with the words for the command line: what it says counts, what a person types counts more, nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.programs import Outcome, command


def asked(tmp_path: Path, text: str, *arguments: object) -> Outcome:
    file = tmp_path / "controller.toml"
    file.write_text(text)
    return command("--config", file, *arguments)


def test_a_command_takes_from_the_file_what_was_not_typed(tmp_path):
    where = f'secondary = "127.0.0.1:7790"\nstate = "{tmp_path}/state"\n'
    text = f'[run]\nsource = "/dev/no-such-disk"\n{where}rate-limit = "20M/s"\n'
    asked(tmp_path, text, "run").refused(2, "/dev/no-such-disk")
    asked(tmp_path, text, "run", "/dev/another").refused(2, "/dev/another")
    asked(tmp_path, text.replace("20M/s", "quickly"), "run").refused(2, "quickly")
    assert not (tmp_path / "state").exists()


def test_several_secondaries_are_a_list(tmp_path):
    text = f'[run]\nsource = "/dev/no-such-disk"\nstate = "{tmp_path}/state"\nsecondary = ["127.0.0.1:1", "nonsense"]\n'
    asked(tmp_path, text, "run").refused(2, "nonsense")
    asked(tmp_path, text.replace("nonsense", "127.0.0.1:2"), "run").refused(2, "/dev/no-such-disk")
    asked(tmp_path, text.replace("nonsense", "127.0.0.1:1"), "run").refused(2, "names one address twice")


def test_the_file_may_be_named_in_the_environment(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[down]\nstate = "/no/such/state"\n')
    command("down", PYDBT_CONFIG=str(file)).refused(2, "/no/such/state")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run", ["is not TOML"]),
        ("[runs]\n", ["no command 'runs'"]),
        ("[pki]\n", ["no command 'pki'"]),
        ("run = 1\n", ["run is no table"]),
        ("[run]\nsauce = 1\n", ["knows no 'sauce'", "secondary", "source"]),
        ("[run]\ninsecure = 1\n", ["true or false"]),
        ("[run]\nstate = true\n", ["a text or a number"]),
        ("[run]\nstate = ['a', 'b']\n", ["a text or a number"]),
        ("[run]\nsecondary = true\n", ["a text or a list of texts"]),
        ("[run]\nsecondary = [1]\n", ["a text or a list of texts"]),
    ],
)
def test_what_no_command_knows_is_named_and_nothing_is_done(tmp_path, text, words):
    asked(tmp_path, text, "status", "--state", tmp_path).refused(2, "controller.toml", *words)


def test_a_file_that_is_asked_for_must_be_there(tmp_path):
    command("--config", tmp_path / "none.toml", "status", "--state", tmp_path).refused(2, "there is no file")
