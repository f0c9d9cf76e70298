"""``controller transactions`` lists what is in a file system's log, without a controller, and changes nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pydbt.cli import running_transactions
from pydbt.cli.group import cli
from pydbt.core.errors import NotRunning, UsageError
from tests.core.transactions.recorded import Recorded


def transactions(*words: object) -> Result:
    return CliRunner().invoke(cli, ["transactions", *map(str, words)])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "disk.img"
    Recorded("ext4-ordered-1k").write_image(path)
    return path


def test_one_line_per_transaction_and_the_last_whole_one(image: Path) -> None:
    before = hashlib.sha256(image.read_bytes()).digest()
    found = transactions(image)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].split()[:2] == ["transaction", "committed"]
    assert [line.split()[0] for line in lines[1:-1]] == [str(number) for number in range(2, 14)]
    assert "2026-11-29 16:07:53.234" in lines[-2] and "committed, replayed by the next mount" in lines[-2]
    assert lines[-1] == f"ext4 on {image}, a log of 4.0 MiB: transaction 13 is the last that is whole"
    assert hashlib.sha256(image.read_bytes()).digest() == before


def test_a_program_reads_every_part_that_a_transaction_names(image: Path) -> None:
    report = json.loads(transactions(image, "--json").output)
    assert (report["file_system"], report["mounted"], report["last_whole"]) == ("ext4", False, "13")
    last = report["transactions"][-1]
    assert (last["transaction"], last["state"], last["replayed"], last["reason"]) == ("13", "committed", True, None)
    assert last["committed"].startswith("2026-11-29T16:07:53.234") and last["changed_whole"]
    assert last["changed"][0] == {"offset_bytes": 262 * 1024, "length_bytes": 1024} and last["revoked"] == []
    assert last["log_bytes"] == 8 * 1024


def test_a_log_without_a_whole_transaction_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    Recorded("ext4-ordered-1k").write_image(path)
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(b"\xc0\x3b\x39\x98\0\0\0\2", at + 1)) >= 0:
        content[at + 50] ^= 1  # the time in a commit block
    path.write_bytes(content)
    found = transactions(path)
    assert found.output.splitlines()[-1].endswith("no transaction in it is whole, so the last one is unknown")
    assert "abandoned: the checksum of its block" in found.output
    assert json.loads(transactions(path, "--json").output)["last_whole"] is None


@pytest.mark.parametrize("kind", ["missing", "folder", "zeroes", "short"])
def test_a_path_without_a_log_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(bytes(4096 if kind == "zeroes" else 100))
    found = transactions(path)
    assert isinstance(found.exception, UsageError) and str(path) in str(found.exception), found


def test_an_image_has_no_controller_to_follow(image: Path) -> None:
    found = transactions(image, "--follow")
    assert isinstance(found.exception, NotRunning) and "no controller replicates" in str(found.exception)
    found = transactions(image, "--follow", "--on-disk")
    assert isinstance(found.exception, UsageError) and "give one of them" in str(found.exception)
    assert transactions(image, "--on-disk").output == transactions(image).output


@pytest.mark.parametrize("name", ["", "the last one", "3:", "48211.x"])
def test_a_text_that_names_no_transaction_is_refused_before_anything_is_asked(name: str) -> None:
    found = CliRunner().invoke(cli, ["wait", "/dev/null", "--transaction", name])
    assert isinstance(found.exception, UsageError) and "names no transaction" in str(found.exception)


def test_the_parts_of_one_transaction_are_listed_with_what_is_known_of_them(image: Path) -> None:
    found = transactions(image, "--transaction", "13")
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[1].split()[:3] == [f"{262 * 1024:,}", "1.0", "KiB"] and lines[1].endswith("is not mounted")
    assert lines[-1].startswith(f"transaction 13 (committed) on {image} changes {len(lines) - 2} parts")
    told = json.loads(transactions(image, "--transaction", "13", "--json").output)
    assert told["changed_count"] == len(told["changed"]) == len(lines) - 2
    assert told["changed"][0]["file"] is None and "not mounted" in told["changed"][0]["what"]


def test_a_transaction_that_is_not_there_is_refused_with_the_last_one(image: Path) -> None:
    with pytest.raises(UsageError, match="shows no transaction 14: the last of 12 that are known is 13"):
        CliRunner().invoke(
            cli, ["transactions", str(image), "--transaction", "14"], catch_exceptions=False, standalone_mode=False
        )
    with pytest.raises(UsageError, match="give one of them"):
        CliRunner().invoke(
            cli,
            ["transactions", str(image), "--transaction", "14", "--follow"],
            catch_exceptions=False,
            standalone_mode=False,
        )


@pytest.mark.parametrize("as_json", [False, True])
def test_transactions_that_the_controller_does_not_keep_long_enough_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def entry(ordinal: int) -> dict[str, object]:
        return {"ordinal": ordinal, "transaction": str(100 + ordinal), "state": "done", "reason": None}

    answers = iter(
        [
            {"reason": "", "oldest_kept": oldest, "transactions": [entry(one) for one in ordinals]}
            for oldest, ordinals in ((4, (4, 5)), (4, (6,)), (9, (9, 10)), (11, (11,)))
        ]
    )
    monkeypatch.setattr(running_transactions, "ask", lambda place, request: next(answers))
    monkeypatch.setattr(running_transactions.time, "sleep", lambda seconds: None)
    with pytest.raises(StopIteration):
        running_transactions.follow_transactions(Path("/run"), as_json)
    captured = capsys.readouterr()
    printed = [json.loads(line)["transaction"] if as_json else line.split()[0] for line in captured.out.splitlines()]
    assert printed == ["106", "109", "110", "111"], "nothing is said of what ended before the call"
    assert captured.err == "2 transactions were not seen: more ended at once than the controller keeps\n"
