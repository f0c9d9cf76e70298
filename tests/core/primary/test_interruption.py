"""The kernel's view of a connection makes an outage known sooner than the heartbeat, and never hides one."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from pydbt.core.primary.interruption import (
    CONTRADICTED_AFTER_S,
    GONE_PATIENCE_S,
    Interruption,
    TcpView,
    Way,
    way_problem,
)
from pydbt.core.primary.link import LONGEST_BACKOFF_S, Link
from pydbt.core.protocol.heartbeat import FRESH_S, HEARTBEAT_S, SILENT_S

WHOLE = Way("10.0.0.2", "10.0.0.1", "eth0", is_up=True, has_carrier=True, has_local=True)
CARRIER_LOST = replace(WHOLE, has_carrier=False)
IDLE = TcpView(unacknowledged=0, answer_age_s=90.0, retransmissions=0, delivery_rate_bytes=None)


def unanswered(age_s: float, retransmissions: int = 3) -> TcpView:
    return TcpView(2, age_s, retransmissions, None)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (WHOLE, ""),
        (CARRIER_LOST, "the interface eth0 has no carrier"),
        (replace(WHOLE, is_up=False, has_carrier=False), "the interface eth0 is down"),
        (replace(WHOLE, interface=""), "no route to 10.0.0.2"),
        (replace(WHOLE, has_local=False), "this machine does not have the address 10.0.0.1 any more"),
        (replace(WHOLE, local="", has_local=False), ""),
    ],
)
def test_a_broken_way_is_described_in_words(way: Way, words: str) -> None:
    assert way_problem(way) == words


def connected_link() -> Link:
    link = Link(15.0, 0.0)
    link.connected(0.0)
    link.answered(link.next_token(0.5))
    link.heard(10.0)
    return link


def test_a_lost_carrier_is_told_at_once_and_ends_the_connection_only_when_it_lasts() -> None:
    link = connected_link()
    link.seen(WHOLE, 10.0)
    assert link.available(10.0) and not link.problem(10.0)
    link.seen(CARRIER_LOST, 10.1)
    assert not link.available(10.1)
    assert link.silence(10.1) == link.problem(10.1) == "the interface eth0 has no carrier"
    assert not link.dead(10.0 + GONE_PATIENCE_S, waiting=False)
    assert link.deadline() <= 10.1 + GONE_PATIENCE_S
    assert link.dead(10.1 + GONE_PATIENCE_S, waiting=False) == "the interface eth0 has no carrier"


def test_a_flap_of_the_carrier_ends_nothing() -> None:
    link = connected_link()
    for now in (11.0, 13.0, 15.0):
        link.heard(now)
        link.seen(CARRIER_LOST, now)
        link.seen(WHOLE, now + 1.0)
        assert not link.problem(now + 1.0)
    assert not link.dead(13.1 + GONE_PATIENCE_S, waiting=False)


def test_another_fault_of_the_same_way_does_not_begin_the_patience_anew() -> None:
    link = connected_link()
    link.seen(CARRIER_LOST, 10.0)
    link.seen(replace(WHOLE, interface=""), 12.0)
    assert link.dead(10.0 + GONE_PATIENCE_S, waiting=False) == "no route to 10.0.0.2"


def test_a_frame_that_still_arrives_shows_that_there_is_a_way() -> None:
    link = connected_link()
    link.seen(CARRIER_LOST, 10.0)
    link.heard(10.0 + CONTRADICTED_AFTER_S / 2)  # it may have waited in a queue of this machine
    assert link.problem(10.3)
    link.heard(10.1 + CONTRADICTED_AFTER_S)
    assert not link.problem(10.7) and not link.dead(10.1 + GONE_PATIENCE_S, waiting=False)
    link.seen(CARRIER_LOST, 30.0)
    assert link.problem(30.0), "the next notification counts again"


def test_a_frame_that_was_still_under_way_hides_a_lost_way_no_longer_than_a_silence_is_accepted() -> None:
    link = connected_link()
    link.seen(CARRIER_LOST, 10.0)
    link.heard(12.0)  # read late, by a machine that was busy
    assert link.available(12.1) and not link.problem(12.0 + SILENT_S)
    assert link.problem(12.1 + SILENT_S) == "the interface eth0 has no carrier" and not link.available(12.1 + SILENT_S)
    assert link.deadline() <= 12.0 + SILENT_S + GONE_PATIENCE_S
    assert not link.dead(11.9 + SILENT_S + GONE_PATIENCE_S, waiting=False)
    assert link.dead(12.0 + SILENT_S + GONE_PATIENCE_S, waiting=False) == "the interface eth0 has no carrier"
    link.lost("cut", 18.0)
    assert link.problem(18.0) == "the interface eth0 has no carrier", "the cause, not its consequence"


def test_a_way_that_was_not_looked_at_ends_nothing_as_long_as_it_is_used() -> None:
    link = connected_link()
    link.seen(CARRIER_LOST, 10.0)
    for now in range(11, 60):
        assert not link.dead(float(now), waiting=False)
        link.heard(float(now))
        assert not link.problem(float(now))


def test_a_way_that_comes_back_ends_the_waiting_between_attempts() -> None:
    link = connected_link()
    link.seen(CARRIER_LOST, 10.0)
    link.lost(link.dead(14.0, waiting=False), 14.0)
    for now in (15.0, 20.0, 25.0, 30.0, 35.0, 40.0):
        link.attempt()
        link.lost("no answer", now)
        assert link.problem(now) == "the interface eth0 has no carrier", "the cause, not its consequence"
    assert not link.may_connect(40.0 + LONGEST_BACKOFF_S / 2)
    link.seen(WHOLE, 40.1)
    assert link.may_connect(40.1) and link.problem(40.1) == "no answer"
    link.attempt()
    link.seen(CARRIER_LOST, 41.0)
    assert not link.may_connect(42.0)
    link.seen(WHOLE, 42.0)
    assert link.may_connect(42.0), "an attempt that was begun without a way is not waited for"
    link.attempt()
    link.seen(WHOLE, 43.0)
    assert not link.may_connect(43.0), "the way was there all the time"


def test_data_that_is_not_answered_for_a_heartbeat_is_told() -> None:
    link = connected_link()
    link.seen(IDLE, 10.0)
    link.seen(unanswered(10.0, 0), 10.2)  # it was sent after a long time in which nothing was to be answered
    assert not link.problem(10.2)
    link.seen(unanswered(11.0, 1), 10.2 + HEARTBEAT_S)
    assert not link.problem(11.2)
    link.seen(unanswered(11.4), 11.6)
    assert link.problem(11.6) == "unanswered for 1.4 s, 3 retransmissions"
    assert not link.available(11.6) and not link.dead(11.6, waiting=True), "only silence ends a connection"
    link.seen(unanswered(0.1), 11.8)
    assert not link.problem(11.8), "an answer, and other data is on its way"
    link.seen(unanswered(1.3, 1), 13.0)
    assert link.problem(13.0) == "unanswered for 1.3 s, 1 retransmission"
    link.heard(13.1)
    link.seen(IDLE, 13.1)
    assert not link.problem(13.1)


def test_a_slow_network_that_retransmits_nothing_is_no_outage() -> None:
    link = connected_link()
    for now in (10.0, 12.0, 14.0):
        link.heard(now)
        link.seen(unanswered(now, 0), now)
    assert not link.problem(14.0)


def test_the_account_of_one_connection_is_not_that_of_the_next_nor_of_a_pause_of_ours() -> None:
    for end in ("lost", "stopped"):
        link = connected_link()
        link.seen(replace(unanswered(1.0), delivery_rate_bytes=7), 10.0)
        link.seen(unanswered(9.0), 12.0)
        assert link.problem(12.0) and link.interruption.delivery_rate_bytes == 7
        if end == "lost":
            link.lost("cut", 12.0)
            link.seen(unanswered(9.0), 14.0)  # of the one that is closed
            link.connected(15.0)
        else:
            link.forgive(15.0)
        assert not link.problem(15.0) and link.interruption.delivery_rate_bytes is None


def test_a_machine_that_connected_has_a_way() -> None:
    link = Link(15.0, 0.0)
    link.seen(CARRIER_LOST, 0.0)
    link.connected(4.0)
    assert not link.problem(4.0)


def test_without_a_problem_there_is_no_deadline() -> None:
    assert Interruption().deadline() == inf


def test_the_patience_is_longer_than_what_may_be_missing_on_a_replica_that_is_up_to_date() -> None:
    assert HEARTBEAT_S < FRESH_S <= GONE_PATIENCE_S
