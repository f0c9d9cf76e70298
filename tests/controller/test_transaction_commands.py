"""A running primary answers about transactions by the state of its brains, and a wait for one ends when all hold it."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.transaction_commands import asked_transaction, ended_transactions
from pydbt.controller.primary.transaction_watch import KnownTransaction
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.waits import WaitingRequests
from pydbt.controller.requests import Request
from pydbt.core.errors import DeviceError, UsageError
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import AnswerWait
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.transactions.asked_transaction import AskedTransaction
from pydbt.core.transactions.transaction import RunsOfTransaction, TransactionState
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of

CONFIG = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)


def known(ordinal: int, state: TransactionState = TransactionState.COMMITTED) -> KnownTransaction:
    named = RunsOfTransaction()
    named.add_blocks([3], 4096)
    reason = "" if state is TransactionState.COMMITTED else "its checksum is wrong"
    return KnownTransaction(ordinal, str(100 + ordinal), state, 5_000_000_000, time.monotonic(), 8192, 1, named, reason)


def named(ordinal: int) -> NamedTransaction:
    return NamedTransaction(
        str(100 + ordinal), 100 + ordinal, 5_000_000_000, time.monotonic(), ordinal * 10, ordinal, ordinal * 10
    )


def volume(tmp_path: Path, problem: str = "", secondaries: int = 1) -> Volume:
    """One whose log is followed: of five transactions the third was abandoned."""
    records = [SecondaryRecord(slot, f"h:{slot}", SyncPhase.REPLICATING) for slot in range(1, secondaries + 1)]
    made = volume_of(tmp_path, *records)
    for slot in range(1, secondaries + 1):
        made.join(slot, Joining(CONFIG))
    ended = [known(one, TransactionState.ABANDONED if one == 3 else TransactionState.COMMITTED) for one in range(1, 6)]
    made.transactions = SimpleNamespace(
        file_system="ext4", problem=problem, per_second=lambda now: 2.0, oldest_kept=1,
        recent=lambda after: [one for one in ended if one.ordinal > after],
    )  # fmt: skip
    for brain in made.brains:
        brain.state.payload_on = True
        brain.transactions.newest = named(4)
        brain.transactions.held = named(2)
    return made


def test_each_transaction_is_told_with_its_state(tmp_path: Path) -> None:
    answer = ended_transactions(volume(tmp_path), 0)
    assert (answer["unit"], answer["reason"], answer["file_system"]) == ("file-system", "", "ext4")
    assert (answer["done_through"], answer["committed_through"], answer["oldest_kept"]) == (2, 4, 1)
    states = [(one["transaction"], one["state"]) for one in answer["transactions"]]
    assert states == [
        ("101", "done"),
        ("102", "done"),
        ("103", "abandoned"),
        ("104", "committed"),
        ("105", "submitted"),
    ]
    last = answer["transactions"][-1]
    assert last["committed"] == "1970-01-01T00:00:05.000Z" and last["submitted"].endswith("Z")
    assert last["changed"] == [{"offset_bytes": 3 * 4096, "length_bytes": 4096}] and last["changed_count"] == 1
    assert answer["transactions"][2]["reason"] == "its checksum is wrong"
    assert [one["ordinal"] for one in ended_transactions(volume(tmp_path), 3)["transactions"]] == [4, 5]


def test_a_transaction_whose_commit_failed_is_abandoned_also_when_a_later_one_is_done(tmp_path: Path) -> None:
    made = volume(tmp_path, secondaries=2)
    made.brains[1].transactions.lost.add(named(1), "a write of it failed")
    told = [(one["transaction"], one["state"], one["reason"]) for one in ended_transactions(made, 0)["transactions"]]
    assert told[:2] == [("101", "abandoned", "a write of it failed"), ("102", "done", None)]


def test_a_wait_for_a_lost_transaction_ends_with_a_sentence(tmp_path: Path) -> None:
    made, request = volume(tmp_path), Request("wait", Event())
    asked = made.waits.add(request, 0, None, AskedTransaction.parse("101"))
    EffectRunner(made).carry_out([(None, AnswerWait(asked.token, lost="a write of it failed"))])
    assert isinstance(request.error, DeviceError) and "no secondary will hold" in str(request.error)


def test_a_transaction_is_done_when_every_secondary_holds_it(tmp_path: Path) -> None:
    made = volume(tmp_path, secondaries=2)
    made.brains[1].transactions.held = named(1)
    assert ended_transactions(made, 0)["done_through"] == 1
    made.brains[1].transactions.held = None
    assert ended_transactions(made, 0)["done_through"] == 0


def test_a_log_that_is_not_followed_says_why(tmp_path: Path) -> None:
    answer = ended_transactions(volume(tmp_path, problem="it has no journal"), 0)
    assert (answer["unit"], answer["reason"]) == ("write-request", "it has no journal")
    made = volume(tmp_path)
    made.transactions = None
    assert ended_transactions(made, 0)["transactions"] == []


def test_the_word_current_is_the_newest_transaction_whose_commit_has_completed(tmp_path: Path) -> None:
    made = volume(tmp_path)
    assert asked_transaction(made, "current") == (None, {"transaction": "104", "reason": ""})
    made = volume(tmp_path, problem="it has no journal")
    assert asked_transaction(made, "current") == (None, {"transaction": None, "reason": "it has no journal"})


def test_a_transaction_that_cannot_be_waited_for_is_refused_in_one_sentence(tmp_path: Path) -> None:
    asked, told = asked_transaction(volume(tmp_path), "48211.3")
    assert asked is not None and (asked.number, asked.fast, told["transaction"]) == (48211, 3, "48211.3")
    with pytest.raises(UsageError, match="48211"):
        asked_transaction(volume(tmp_path), "the last one")
    with pytest.raises(UsageError, match="of xfs, and this volume has ext4"):
        asked_transaction(volume(tmp_path), "3:1024")
    made = volume(tmp_path)
    made.transactions = None
    with pytest.raises(UsageError, match="no transactions to wait for"):
        asked_transaction(made, "48211")


def test_the_name_of_the_awaited_transaction_is_a_part_of_a_good_answer_alone() -> None:
    waits = WaitingRequests()
    request = Request("wait", Event(), told={"transaction": "104"})
    asked = waits.add(request, 64, None)
    waits.answer(asked.token, 7)
    assert request.result == {"sequence": 7, "transaction": "104"}
    other = Request("wait", Event(), told={"transaction": "104"})
    waits.give_up(waits.add(other, 64, None).token, UsageError("it cannot be"))
    assert other.result is None
