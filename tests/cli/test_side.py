"""A configured side starts in the role that its state records, whatever its file began with; and every command says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from pydbt.cli import serving, side
from pydbt.cli.commands import run as run_command
from pydbt.cli.commands import secondary as secondary_command
from pydbt.cli.file_role import role_part
from pydbt.cli.group import cli, execute
from pydbt.cli.side import Side, present_role
from pydbt.cli.supervising import configured
from pydbt.cli.volume_files import read_volume
from pydbt.controller.control import write_saved_status
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.core.errors import StateError, UsageError
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.units import MIB
from pydbt.store.listen_file import LISTEN_FILE_NAME, save_listen
from pydbt.store.replica_state import REPLICA_FILE_NAME, save_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.successor import save_successor
from pydbt.store.volume_state import VolumeState, save_state
from tests.lab.programs import Outcome

RUN = '[run]\nsource = "/dev/vda3"\nsecondary = "10.0.0.2:7790"\ninsecure = true\n'
REPLICA = '[secondary]\ntarget = "/dev/vdb"\nlisten = "10.0.0.2:7790"\ninsecure = true\n'
AND_SECONDARY = '[secondary]\nlisten = "10.0.0.1:7790"\njournal-size = "64M"\n'
AND_RUN = '[run]\nsecondary = "10.0.0.1:7790"\ncompress = true\non-unreachable = "refuse"\n'
RECORD = ReplicaRecord(
    replica="12" * 16, target="block-device:x", segment_bytes=65536, volume="ab" * 16, size_bytes=MIB
)
SINCE = "2026-01-02T16:18:58+00:00"


class Machine:
    """The file ``data`` of a machine, and a state directory beside it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.volumes, self.state, self._capsys = root, root / "volumes", root / "state", capsys
        self.volumes.mkdir()
        self.state.mkdir(mode=0o700)

    def write(self, *tables: str) -> Path:
        """The state directory is named in the first of the tables."""
        path = self.volumes / "data.toml"
        path.write_text(f'{tables[0]}state = "{self.state}"\n{"".join(tables[1:])}')
        return path

    @property
    def side(self) -> Side:
        return Side(read_volume(self.volumes / "data.toml"), cli)

    def demoted(self) -> None:
        save_record(self.state, RECORD)
        save_successor(self.state, "10.0.0.2:7790")

    def promoted(self, *secondaries: str) -> None:
        records = tuple(
            SecondaryRecord(slot, address, SyncPhase.REPLICATING) for slot, address in enumerate(secondaries, start=1)
        )
        save_state(self.state, VolumeState("ab" * 16, MIB, 4096, "/dev/vdb", {}, records))
        save_record(self.state, replace(RECORD, promoted=SINCE))

    def run(self, *words: str) -> Outcome:
        return Outcome(execute(["--config", str(self.root / "none.toml"), *words]), *self._capsys.readouterr())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Machine:
    (tmp_path / "none.toml").write_text("")
    monkeypatch.setenv("PYDBT_VOLUMES", str(tmp_path / "volumes"))
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path, capsys)


# --- which options a start has ----------------------------------------------------------------------------


def test_a_new_side_starts_as_its_file_says_and_knows_the_other_table(machine: Machine) -> None:
    file = machine.write(RUN, AND_SECONDARY)
    found = machine.side.options()
    assert isinstance(found, PrimaryOptions) and found.secondaries == (("10.0.0.2", 7790),)
    assert found.volume_file == file and found.state_dir == machine.state
    after = found.afterwards
    assert after is not None and after.listen == ("10.0.0.1", 7790) and after.journal_limit_bytes == 64 * MIB
    assert (after.target, after.state_dir, after.insecure) == (Path("/dev/vda3"), machine.state, True)
    assert after.accept_sectors and after.volume_file == file


def test_a_demoted_primary_starts_as_the_secondary_by_its_second_table(machine: Machine) -> None:
    machine.write(RUN, AND_SECONDARY)
    machine.demoted()
    found = machine.side.options()
    assert isinstance(found, SecondaryOptions) and found.listen == ("10.0.0.1", 7790)
    assert found.afterwards is not None and found.afterwards.secondaries == (("10.0.0.2", 7790),)


def test_without_a_second_table_it_waits_where_it_waited_last(machine: Machine) -> None:
    file = machine.write(RUN)
    machine.demoted()
    save_listen(machine.state, "10.0.0.1:7799")
    found = machine.side.options()
    assert isinstance(found, SecondaryOptions) and found.listen == ("10.0.0.1", 7799)
    assert found.target == Path("/dev/vda3") and found.insecure and found.volume_file == file
    assert found.afterwards is not None and found.afterwards.secondaries == (("10.0.0.2", 7790),), "the way back"


@pytest.mark.parametrize("kept", [None, b"\xff\xfe"], ids=["none", "one that cannot be read"])
def test_of_a_secondary_of_an_earlier_version_the_last_status_tells_where_it_waited(
    machine: Machine, kept: bytes | None
) -> None:
    machine.write(RUN)
    machine.demoted()
    if kept is not None:
        (machine.state / LISTEN_FILE_NAME).write_bytes(kept)
    for told, role, is_known in (
        ("10.0.0.1:7799", "secondary", True),
        ("10.0.0.1:7799", "primary", False),
        ("x", "secondary", False),
    ):
        write_saved_status(machine.state, {"role": role, "listen": told})
        assert bool(side.refused_words(machine.side.volume)) is not is_known, told
    write_saved_status(machine.state, {"role": "secondary", "listen": "10.0.0.1:7799"})
    found = machine.side.options()
    assert isinstance(found, SecondaryOptions) and found.listen == ("10.0.0.1", 7799)


def test_without_any_address_it_is_refused_and_says_what_to_write(machine: Machine) -> None:
    file = machine.write(RUN)
    machine.demoted()
    with pytest.raises(
        UsageError, match=r"since 10\.0\.0\.2:7790 took its place.*add a table \[secondary\] with listen"
    ):
        machine.side.options()
    refused = machine.run("run", "data")
    refused.refused(2, "data is not started", str(file), "[secondary]", "listen =")


def test_a_replica_that_took_over_starts_as_the_primary_of_the_secondary_on_record(machine: Machine) -> None:
    machine.write(REPLICA)
    machine.promoted("10.0.0.1:7790")
    found = machine.side.options()
    assert isinstance(found, PrimaryOptions) and found.secondaries == (("10.0.0.1", 7790),)
    assert (found.source, found.state_dir, found.insecure) == (Path("/dev/vdb"), machine.state, True)
    assert found.afterwards is not None and found.afterwards.listen == ("10.0.0.2", 7790), "the way back"


def test_the_table_of_the_primary_overrides_the_record(machine: Machine) -> None:
    machine.write(REPLICA, AND_RUN)
    machine.promoted("10.9.9.9:7790")
    found = machine.side.options()
    assert isinstance(found, PrimaryOptions) and found.compress and found.secondaries == (("10.0.0.1", 7790),)
    assert found.afterwards is not None and found.afterwards.listen == ("10.0.0.2", 7790)


def test_a_promoted_replica_without_a_secondary_answers_and_the_log_says_what_is_missing(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.write(REPLICA)
    machine.promoted()
    found = machine.side.options()
    assert isinstance(found, SecondaryOptions) and found.listen == ("10.0.0.2", 7790)
    assert 'add a table [run] with secondary = "ADDR:PORT"' in caplog.text


def test_a_state_that_cannot_be_read_starts_nothing(machine: Machine) -> None:
    machine.write(RUN, AND_SECONDARY)
    (machine.state / REPLICA_FILE_NAME).write_text("torn")
    with pytest.raises(StateError):
        machine.side.options()
    assert present_role(machine.side.volume) == "run", "for what is shown"
    assert machine.run("run", "data").code == StateError.exit_code


def test_a_peer_of_one_table_is_that_of_both_but_not_the_list_of_several(machine: Machine) -> None:
    for names, peer in (('"beta"', "beta"), ('["beta"]', None)):
        machine.write(RUN.replace("insecure = true", f'identity = "/i"\npeer = {names}'), AND_SECONDARY)
        found = machine.side.options().afterwards
        assert isinstance(found, SecondaryOptions) and found.peer == peer and found.identity == Path("/i")


# --- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tables", "line", "words"),
    [
        ((RUN, '[secondary]\njournal-size = "64M"\n'), 6, "listen: missing"),
        ((RUN, f'{AND_SECONDARY}state = "/x"\n'), 9, 'state = "/x": expected in [run] alone'),
        ((RUN, f"{AND_SECONDARY}lisen = 1\n"), 9, "did you mean 'listen'"),
        ((RUN, AND_SECONDARY.replace("64M", "1M")), 8, "less than the least journal"),
        ((RUN, AND_SECONDARY.replace("10.0.0.1:7790", "x")), 7, "is not an address"),
        ((RUN, REPLICA), 6, "expected the device in one table alone"),
        ((RUN.replace('source = "/dev/vda3"\n', ""), AND_SECONDARY), 5, "expected the device in one table alone"),
        ((REPLICA, "[run]\ncompress = true\n"), 6, "secondary: missing"),
        ((RUN, f'{AND_SECONDARY}identity = "/no/such"\n'), 9, "/no/such"),
    ],
)
def test_a_fault_of_the_second_table_is_told_with_its_place(
    machine: Machine, tables: tuple[str, ...], line: int, words: str
) -> None:
    file = machine.write(*tables)
    found = machine.run("configcheck")
    (told,) = found.output.splitlines()
    assert found.code == 2 and told.startswith(f"{file} line {line}: ") and words in told, found


def test_two_files_may_not_listen_at_one_address_in_whatever_role(machine: Machine) -> None:
    machine.write(RUN, AND_SECONDARY)
    (machine.volumes / "rep.toml").write_text(REPLICA.replace("10.0.0.2", "10.0.0.1"))
    found = machine.run("configcheck")
    assert found.code == 2 and found.output.count("an address to listen at") == 2, found


@pytest.mark.parametrize("tables", [(RUN, AND_SECONDARY), (REPLICA, AND_RUN), (AND_RUN, REPLICA)])
def test_the_check_says_the_role_of_each_side_that_has_another_one_than_its_file_began_with(
    machine: Machine, tables: tuple[str, ...]
) -> None:
    file = machine.volumes / "data.toml"
    place = f'state = "{machine.state}"\n'
    file.write_text("".join(one + place if "source" in one or "target" in one else one for one in tables))
    before = machine.run("configcheck")
    assert before.code == 0 and "it starts as" not in before.output, before
    begins_as_run = RUN in tables
    machine.demoted() if begins_as_run else machine.promoted()
    found = machine.run("configcheck")
    role = "secondary" if begins_as_run else "run"
    assert found.code == 0 and f"it starts as [{role}]" in found.output and str(file) in found.output, found


def test_a_start_that_would_be_refused_is_an_error_of_the_check(machine: Machine) -> None:
    file = machine.write(RUN)
    machine.demoted()
    found = machine.run("configcheck")
    assert found.code == 2 and f"{file} line 1: [run]: by its state this side is a replica" in found.output, found
    save_listen(machine.state, "10.0.0.1:7790")
    assert machine.run("configcheck").code == 0


# --- commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options with which something would have been served."""
    found: list[Any] = []

    def serve(options: Any, *_: Any, side: Side | None = None, **__: Any) -> int:
        found.append((options, side is not None))
        return 0

    for module in (run_command, secondary_command):
        monkeypatch.setattr(module, "serve_in_role", serve)
    return found


@pytest.mark.parametrize("command", ["run", "secondary"])
@pytest.mark.parametrize("kind", [SecondaryOptions, PrimaryOptions], ids=["demoted volume", "promoted replica"])
def test_either_command_serves_a_side_in_the_role_that_its_state_records(
    machine: Machine, served: list[Any], command: str, kind: type[PrimaryOptions | SecondaryOptions]
) -> None:
    if kind is SecondaryOptions:
        machine.write(RUN, AND_SECONDARY)
        machine.demoted()
    else:
        machine.write(REPLICA, AND_RUN)
        machine.promoted()
    assert machine.run(command, "data").code == 0
    ((options, by_state),) = served
    assert isinstance(options, kind) and by_state


def test_the_command_of_a_role_that_neither_file_nor_state_has_is_refused(machine: Machine, served: list[Any]) -> None:
    machine.write(RUN, AND_SECONDARY)
    machine.run("secondary", "data").refused(2, "data is a volume", "'controller run data'")
    machine.write(REPLICA, AND_RUN)
    machine.run("run", "data").refused(2, "data is a replica", "'controller secondary data'")
    assert not served


@pytest.mark.parametrize("words", [("--compress",), ("--fixed-role",)])
def test_whoever_types_an_option_takes_the_role_that_is_typed(
    machine: Machine, served: list[Any], words: tuple[str, ...]
) -> None:
    """The cluster's agent does: it gives the role itself. What the state does not allow is refused by the start."""
    machine.write(RUN, AND_SECONDARY)
    machine.demoted()
    assert machine.run("run", "data", *words).code == 0
    ((options, by_state),) = served
    assert isinstance(options, PrimaryOptions) and not by_state


@pytest.mark.parametrize(
    ("words", "by_state", "ends"),
    [
        ((), True, True),
        (("--state", "STATE"), True, True),
        (("--no-stage",), False, False),
        (("--fixed-role",), False, True),
    ],
)
def test_a_secondary_by_its_name_goes_on_after_a_promotion_unless_its_role_is_fixed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], by_state: bool, ends: bool
) -> None:
    found: list[Any] = []

    def serve(_: Any, *__: Any, side: Side | None = None, until_promoted: bool = True, **___: Any) -> int:
        found.append((side is not None, until_promoted))
        return 0

    monkeypatch.setattr(secondary_command, "serve_in_role", serve)
    machine.write(REPLICA)
    typed = [str(machine.state) if word == "STATE" else word for word in words]
    assert machine.run("secondary", "data", *typed).code == 0
    assert found == [(by_state, ends)]
    assert machine.run("secondary", "data", "--state", str(machine.root / "other")).code == 0
    assert found[1] == (False, False), "another state directory is not that of the file"


def test_a_demoted_volume_is_served_at_a_typed_address_where_the_file_has_none(
    machine: Machine, served: list[Any]
) -> None:
    machine.write(RUN)
    machine.demoted()
    assert machine.run("secondary", "data", "--listen", "10.0.0.1:7790").code == 0
    ((options, _),) = served
    assert options.listen == ("10.0.0.1", 7790) and options.target == Path("/dev/vda3") and options.insecure


def test_the_process_of_all_volumes_serves_each_file_of_its_role_as_the_state_says(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def serve(options: Any, **_: Any) -> int:
        started.append(type(options))
        return 0

    monkeypatch.setattr("pydbt.cli.supervising.serve_in_role", serve)
    machine.write(RUN, AND_SECONDARY)
    with click.Context(cli):
        (child,) = configured("run", cli, machine.root / "none.toml").values()
        assert not configured("secondary", cli, machine.root / "none.toml"), "one process alone has it"
    assert child.serve is not None
    child.serve()
    machine.demoted()
    child.serve()
    assert started == [PrimaryOptions, SecondaryOptions], "the state of each start counts"


def test_another_second_table_is_another_setting(machine: Machine) -> None:
    found = []
    for more in ("", AND_SECONDARY, AND_SECONDARY.replace("64M", "65M")):
        machine.write(RUN, more)
        with click.Context(cli):
            (child,) = configured("run", cli, machine.root / "none.toml").values()
        found.append(child.wanted.settings)
    assert len(set(found)) == 3


def test_a_replica_needs_no_arming_and_no_closing_record(machine: Machine) -> None:
    for tables, begin in (((RUN, AND_SECONDARY), machine.demoted), ((REPLICA,), machine.demoted)):
        machine.write(*tables)
        begin()
        for word in ("arm", "disarm"):
            found = machine.run(word, "data")
            assert found.code == 0 and "nothing to do" in found.output and "it is a replica" in found.output, found


def test_the_gate_of_a_replica_s_file_takes_the_words_of_its_table_of_the_primary(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(options: Any, policy: Any) -> Any:
        asked.append((options, policy))
        raise UsageError("as far as this test goes")

    monkeypatch.setattr("pydbt.controller.primary.gate.ask_gate", ask)
    machine.write(REPLICA, AND_RUN)
    machine.promoted("10.0.0.1:7790")
    machine.run("gate", "data").refused(2, "as far as this test goes")
    ((options, policy),) = asked
    assert policy.refuses and policy.wait_s == 0 and options.secondaries == (("10.0.0.1", 7790),)


# --- the status -------------------------------------------------------------------------------------------


def test_the_status_says_that_the_role_is_not_the_file_s_while_it_runs_and_afterwards(machine: Machine) -> None:
    machine.write(RUN, AND_SECONDARY)
    assert role_part(machine.state, "primary") == {} == role_part(machine.root / "elsewhere", "secondary")
    assert "this side is the secondary by now" in role_part(machine.state, "secondary")["role_differs"]["words"]
    assert role_part(machine.state) == {}
    machine.demoted()
    write_saved_status(machine.state, {"role": "secondary", "mode": "offline", "target": "/dev/vda3"})
    told = json.loads(machine.run("status", "data", "--json").output)
    assert "it starts as [secondary]" in told["role_differs"]["words"]
    for words in (("status", "data"), ("status",)):
        found = machine.run(*words)
        assert "it starts as [secondary]" in found.output + found.errors, found


def test_what_a_start_lacks_is_in_the_status_of_a_side_that_does_not_run(machine: Machine) -> None:
    (machine.root / "disk").write_bytes(b"")
    machine.write(RUN.replace("/dev/vda3", f"{machine.root}/disk"))
    machine.demoted()
    found = machine.run("status", "data")
    assert found.code == 9 and "add a table [secondary]" in found.errors, found


# --- the process ------------------------------------------------------------------------------------------


def test_a_process_goes_on_in_the_role_that_the_state_records_after_a_promotion(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write(REPLICA, AND_RUN)
    until_promoted: list[bool] = []

    def serve_secondary(options: SecondaryOptions, only_check: bool) -> SecondaryOptions:
        until_promoted.append(options.until_promoted)
        machine.promoted()
        return replace(options)

    ended: list[PrimaryOptions] = []

    def serve_primary(options: PrimaryOptions, *_: object) -> int:
        ended.append(options)
        return 0

    monkeypatch.setattr(serving, "_serve_secondary", serve_secondary)
    monkeypatch.setattr(serving, "_serve_primary", serve_primary)
    begun = machine.side.options()
    assert serving.serve_in_role(begun, side=machine.side) == 0
    assert until_promoted == [False] and ended[0].secondaries == (("10.0.0.1", 7790),)


def test_a_side_without_a_role_has_no_words_of_its_own(machine: Machine) -> None:
    file = machine.write("[runs]\n")
    volume = read_volume(file)
    assert side.differing_words(volume) == side.refused_words(volume) == side.present_role(volume) == ""
    with pytest.raises(UsageError, match="runs"):
        Side(volume, cli).options()
    with pytest.raises(UsageError, match="runs"):
        Side(volume, cli).options_of_file()
