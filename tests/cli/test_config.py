"""A file with the words for the command line: its settings count, the command line overrides them, nothing is guessed."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydbt.cli.config import read_toml_file
from pydbt.cli.group import cli
from pydbt.cli.once import OnceOption
from pydbt.controller import pki
from pydbt.core.errors import UsageError
from tests.lab.disks import image
from tests.lab.programs import PROGRAM, ROOT, Outcome, command


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
def test_an_entry_that_no_command_knows_is_named_and_nothing_is_done(tmp_path, text, words):
    asked(tmp_path, text, "wait", "--state", tmp_path).refused(2, "controller.toml", *words)


ONCE = {
    (name, max(option.opts, key=len).removeprefix("--")): option
    for name, command_ in cli.commands.items()
    for option in command_.params
    if isinstance(option, OnceOption)
}


def test_the_decisions_for_once_are_these_and_the_document_names_them() -> None:
    assert ONCE.keys() == {
        ("run", "accept-replica"), ("run", "assume-in-sync"), ("run", "check"), ("secondary", "replay-only"),
        ("secondary", "check"), ("secondary", "accept-target"), ("secondary", "fixed-role"), ("run", "fixed-role"),
        ("promote", "accept-target"), ("secondaries", "add"), ("secondaries", "remove"), ("secondaries", "peer"),
        ("promote", "force"), ("verify", "cancel"), ("down", "volume"), ("down", "all"), ("gate", "on-unreachable"),
    }  # fmt: skip
    (line,) = [
        words
        for words in (ROOT / "docs/reference/configuration.md").read_text().split("\n- ")
        if words.startswith("**Decisions for once")
    ]
    assert set(re.findall(r"`--([\w-]+)`", line)) == {option for _, option in ONCE}


@pytest.mark.parametrize(("name", "option"), ONCE)
def test_a_decision_for_once_may_only_be_typed(tmp_path: Path, name: str, option: str) -> None:
    is_flag = ONCE[name, option].is_flag
    first = "volume" if name == "gate" else "state"
    table = f"[{name}]\n{first} = '{tmp_path}'\n{option} = "
    refused = asked(tmp_path, table + ("true" if is_flag else '"127.0.0.1:1"'), name)
    refused.refused(2, "controller.toml line 3", f"{option} of [{name}] is a decision for once", f"type --{option}")
    if is_flag:  # no decision
        assert "for once" not in asked(tmp_path, table + "false", name).errors


def test_a_file_that_is_asked_for_must_be_there(tmp_path):
    command("--config", tmp_path / "none.toml", "status", "--state", tmp_path).refused(2, "there is no file")


def test_an_error_names_file_and_line_and_guesses_what_was_meant(tmp_path):
    text = f'# a volume\n[run]\nsource = "/dev/vda3"\nsorce = 1\nstate = "{tmp_path}/state"\n'
    asked(tmp_path, text, "wait").refused(2, "controller.toml line 4", "did you mean 'source'")
    asked(tmp_path, "[wait]\n\n[statsu]\n", "wait").refused(2, "line 3", "did you mean 'status'")
    asked(tmp_path, '[wait]\ntimeout = "soon"\n', "pause").refused(2, "line 2", "'soon' is no time")
    where = f'state = "{tmp_path}/state"\nsecondary = "127.0.0.1:1"\nblock-size = 5000\n'
    asked(tmp_path, f'[run]\nsource = "/dev/null"\n{where}', "run").refused(2, "line 5", "--block-size is 5000 bytes")
    typed = asked(tmp_path, f'[run]\nsource = "/dev/null"\n{where}', "run", "--block-size", "7000")
    assert "line" not in typed.errors, "it was typed"


def test_status_is_read_beside_a_table_that_another_command_cannot_read(tmp_path):
    asked(tmp_path, "[run]\nsauce = 1\n", "status", "--state", tmp_path / "none").refused(2, "no such directory")
    asked(tmp_path, "[status]\nsauce = 1\n", "status", "--state", tmp_path / "none").refused(2, "line 2")


def test_commands_for_a_running_volume_take_it_from_the_table_of_run(tmp_path, disk, controller):
    text = (
        f'[run]\nsource = "{disk}"\nsecondary = "127.0.0.1:1"\nstate = "{controller.state_dir}"\n[wait]\ntimeout = 5\n'
    )
    for name in ("wait", "pause", "resume"):
        assert asked(tmp_path, text, name).code == 0, name
    # A wait that takes long, as on a machine with much to do, asks for the status as well.
    asked_for = [request["command"] for request in controller.asked if request["command"] != "status"]
    assert asked_for == ["wait", "pause", "resume"]
    (waited,) = [request for request in controller.asked if request["command"] == "wait"]
    assert waited["timeout"] == 5
    # The command line overrides the file, in either way of naming a volume.
    asked(tmp_path, text, "pause", "/dev/null").refused(2, "/dev/null")
    asked(tmp_path, text, "pause", "--state", tmp_path / "none").refused(2, "none")
    asked(tmp_path, text.replace(str(controller.state_dir), "/nowhere"), "pause").refused(2, "/nowhere")


def test_down_takes_a_replica_from_the_table_of_secondary(tmp_path):
    asked(tmp_path, f'[secondary]\ntarget = "/dev/x"\nstate = "{tmp_path}/none"\n', "down").refused(2, "none")


@pytest.mark.parametrize("wrong", ["expired", "not valid before", "revoked"])
def test_a_check_says_of_an_identity_what_the_run_would_meet(tmp_path: Path, disk: str, wrong: str) -> None:
    pki.make_authority(tmp_path / "pki")
    shift = {"expired": timedelta(days=-30), "not valid before": timedelta(days=30)}.get(wrong, timedelta())
    path = pki.issue(tmp_path / "pki", "one", 1, datetime.now(UTC) + shift)
    if wrong == "revoked":
        pki.revoke_key(tmp_path / "pki", "one")
    with_it = ("--identity", path, "--state", tmp_path / "state")
    target = image(tmp_path / "t.img", 1 << 20)
    for words in (("run", disk, "--secondary", "127.0.0.1:1"), ("secondary", target, "--listen", "127.0.0.1:47993")):
        command(*words, *with_it, "--check").refused(2, str(path), wrong)
    run = command("run", disk, "--secondary", "127.0.0.1:1", "--no-wait", *with_it)
    assert run.code == 5 and f" error   {Path(disk).name}: " in run.errors and wrong in run.errors, run
    pki.issue(tmp_path / "pki", "one", replace=True)
    for words in (("run", disk, "--secondary", "127.0.0.1:1"), ("secondary", target, "--listen", "127.0.0.1:47993")):
        assert command(*words, *with_it, "--check").code == 0


def test_settings_are_checked_without_running(tmp_path, disk):
    text = f'[run]\nsource = "{disk}"\nsecondary = "unix:/nonexistent"\nstate = "{tmp_path}/state"\n'
    checked = asked(tmp_path, text, "run", "--check")
    assert checked.code == 0 and "could be replicated" in checked.output, checked
    asked(tmp_path, text + 'identity = "/no/such"\n', "run", "--check").refused(2, "line 5", "/no/such")
    target = f'[secondary]\ntarget = "{tmp_path}/new.img"\nlisten = "unix:{tmp_path}/s"\nstate = "{tmp_path}/state"\n'
    asked(tmp_path, target, "secondary", "--check").refused(2, "line 2", "does not exist")
    assert asked(tmp_path, target + 'create = "1M"\n', "secondary", "--check").code == 0
    assert not (tmp_path / "state").exists() and not (tmp_path / "new.img").exists()


def test_a_file_that_another_user_could_have_written_is_not_obeyed(tmp_path):
    text = '[down]\nstate = "/no/such/state"\n'
    file = tmp_path / "controller.toml"
    asked(tmp_path, text, "down").refused(2, "/no/such/state")
    for mode in (0o620, 0o602, 0o666):
        file.chmod(mode)
        command("--config", file, "down").refused(2, "controller.toml is not safe", f"mode {mode:04o}")
    file.chmod(0o600)
    os.chown(file, 65534, 65534)
    command("--config", file, "down").refused(2, "controller.toml is not safe", "belongs to user 65534")
    os.chown(file, 0, 0)
    command("--config", file, "down").refused(2, "/no/such/state")
    place = tmp_path / "place"
    place.mkdir()
    file.rename(place / "controller.toml")
    place.chmod(0o777)
    command("--config", place / "controller.toml", "down").refused(2, "is not safe")


def test_a_file_may_come_through_a_pipe(tmp_path):
    read, write = os.pipe()
    os.write(write, b'[down]\nstate = "/no/such/state"\n')
    os.close(write)
    words = [*PROGRAM, "--config", f"/dev/fd/{read}", "down"]
    done = subprocess.run(words, cwd=ROOT, pass_fds=[read], capture_output=True, text=True)
    os.close(read)
    assert done.returncode == 2 and "/no/such/state" in done.stderr, done


def test_a_byte_order_mark_and_the_ends_of_lines_of_other_systems_are_read(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(b'\xef\xbb\xbf[run]\r\nsource = "/dev/a"\r\n')
    assert read_toml_file(path, "").tables == {"run": {"source": "/dev/a"}}
    path.write_bytes(b'[run]\n# note\rinsecure = true\nsource = "/dev/a"\n')
    assert "insecure" not in read_toml_file(path, "").tables.get("run", {})


def test_a_file_that_is_too_long_for_settings_is_not_read(tmp_path):
    path = tmp_path / "settings.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"settings\.toml is longer than"):
        read_toml_file(path, "")
