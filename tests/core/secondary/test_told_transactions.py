"""A replica names the newest transaction that its primary has told and that is durable here, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.transaction import TRANSACTIONS, Transaction
from pydbt.core.secondary import events as e
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.told_transactions import ToldTransactions
from tests.core.secondary.test_primary_watch import connected

ONE = Transaction("ext4", "48211", "2026-01-02T03:04:05.000Z", 800, 10)
TWO = replace(ONE, name="48212", age_ms=0, sequence=20)


def told(watch: ToldTransactions, now: float = 5.0, *, consistent: bool = True) -> tuple[str | None, str | None]:
    report = watch.report(now, consistent=consistent)
    held, newest = report.transaction, report.newest_transaction
    return held and held.name, newest and newest.name


def test_a_transaction_is_held_from_when_its_position_is_durable() -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.reached(7, 9)
    assert told(watch) == (None, "48211")
    watch.reached(7, 10)
    watch.told(TWO, 7, 5.0)
    assert told(watch) == ("48211", "48212")
    watch.reached(7, 25)
    assert told(watch) == ("48212", "48212")


def test_a_transaction_without_a_name_ends_those_of_the_file_system_before() -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.reached(7, 10)
    watch.told(replace(ONE, name="", sequence=10), 7, 5.0)
    assert told(watch) == ("48211", None)
    watch.told(replace(ONE, name="2", sequence=14), 7, 5.0)
    watch.reached(7, 12)
    assert told(watch) == (None, "2")
    watch.reached(7, 14)
    assert told(watch) == ("2", "2")


def test_the_age_of_a_transaction_is_that_at_the_primary_and_the_time_since() -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.told(replace(ONE, age_ms=1800), 7, 6.0)
    watch.reached(7, 10)
    report = watch.report(8.0, consistent=True)
    assert report.transaction is not None
    assert (report.transaction.age_seconds, report.transaction.committed) == (3.8, ONE.committed)
    assert (report.transaction.epoch, report.transaction.sequence) == ("0000000000000007", 10)


def test_a_replica_that_is_no_image_holds_none() -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.reached(7, 10)
    assert told(watch, consistent=False) == (None, "48211")


@pytest.mark.parametrize(("epoch", "sequence"), [(8, 10), (7, 9)])
def test_another_image_is_of_no_transaction_that_was_told_before(epoch: int, sequence: int) -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.reached(7, 10)
    watch.reached(epoch, sequence)
    assert told(watch) == (None, "48211")


def test_a_transaction_told_by_an_earlier_run_of_the_primary_is_never_reached_by_a_later_run() -> None:
    watch = ToldTransactions()
    watch.told(ONE, 7, 5.0)
    watch.told(TWO, 8, 6.0)
    watch.reached(8, 30)
    assert told(watch) == ("48212", "48212")


def test_a_primary_that_tells_more_than_is_durable_takes_no_more_room() -> None:
    watch = ToldTransactions()
    for number in range(5000):
        watch.told(replace(ONE, name=str(number), sequence=number), 7, 5.0)
    watch.reached(7, 4999)
    assert told(watch) == ("4999", "4999")


def test_the_secondary_asks_for_the_frames_and_takes_them_at_any_time() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)  # its image stands at 10 of epoch 7
    assert TRANSACTIONS in f.WELCOME_FEATURES
    assert brain.handle(e.FrameReceived(1, ONE, 1.0), 1.0) == []
    assert told(watch.transactions) == ("48211", "48211")
    brain.handle(e.FrameReceived(1, TWO, 1.0), 1.0)
    assert told(watch.transactions) == ("48211", "48212")
