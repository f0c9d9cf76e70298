"""The connection: alive, dead, due for another attempt."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.interruption import GONE_PATIENCE_S, TcpView, Way
from pydbt.core.primary.link import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, PROGRESS_PATIENCE, Link
from pydbt.core.protocol.heartbeat import HEARTBEAT_S, SILENT_S


def test_a_silent_or_idle_secondary_is_taken_for_dead_and_a_busy_one_is_not():
    link = Link(10.0, 0.0)
    link.connected(0.0)
    assert not link.dead(9.0, waiting=True)
    link.heard(9.0)
    link.progress(9.0)
    for now in range(10, 50):
        link.heard(float(now))
        assert not link.dead(float(now), waiting=True)
    assert "acknowledged nothing" in link.dead(49.5, waiting=True)
    assert "nothing was heard" in link.dead(59.5, waiting=False)


def test_reconnection_backs_off_to_a_bound_and_starts_short_again_after_a_good_connection():
    link, now, gaps = Link(10.0, 0.0), 0.0, []
    for _ in range(8):
        link.attempt()
        link.lost("refused", now)
        gaps.append(link.deadline() - now)
        now = link.deadline()
    assert gaps[0] == FIRST_BACKOFF_S and gaps == sorted(gaps) and gaps[-1] == LONGEST_BACKOFF_S
    link.connected(now)
    link.lost("cut", now + 60)
    assert link.deadline() == now + 60 + FIRST_BACKOFF_S


def test_while_nothing_else_is_said_a_question_is_asked_at_intervals() -> None:
    link = Link(15.0, 0.0)
    assert link.may_connect(0.0) and link.deadline() == 0.0
    link.attempt()
    assert not link.may_connect(1.0) and link.deadline() == inf
    link.connected(1.0)
    assert not link.ping_due(1.0 + link.ping_interval_s / 2) and link.ping_due(1.0 + link.ping_interval_s)
    assert [link.next_token(4.0), link.next_token(8.0)] == [1, 2]
    assert link.deadline() == 8.0 + link.ping_interval_s


def test_this_process_own_pause_is_no_silence_of_the_secondary() -> None:
    link = Link(10.0, 0.0)
    link.connected(0.0)
    link.forgive(60.0)
    assert not link.dead(60.0, waiting=False)


def test_the_operator_may_have_it_tried_at_once() -> None:
    link = Link(10.0, 0.0)
    for now in (0.0, 1.0, 2.0):
        link.attempt()
        link.lost("refused", now)
    assert not link.may_connect(2.0)
    link.retry_now(2.0)
    assert link.may_connect(2.0)
    link.lost("cut", 3.0)
    assert link.may_connect(3.0), "what was not connected is not lost"


NO_CARRIER = Way("10.0.0.2", "10.0.0.1", "eth0", is_up=True, has_carrier=False, has_local=True)
WHOLE = Way("10.0.0.2", "10.0.0.1", "eth0", is_up=True, has_carrier=True, has_local=True)
UNANSWERED = TcpView(3, HEARTBEAT_S + 1, 2, 1 << 20)


def connected_link(now: float = 0.0) -> Link:
    link = Link(10.0, now)
    link.connected(now)
    return link


def test_an_answer_tells_that_both_directions_worked_when_its_question_was_asked() -> None:
    link = connected_link()
    assert link.answered_at == 0.0 and not link.awaits_answer
    first, second, third = (link.next_token(now) for now in (1.0, 2.0, 3.0))
    link.answered(second)
    assert link.answered_at == 2.0 and link.awaits_answer
    link.answered(first)
    assert link.answered_at == 2.0, "an older answer that comes late tells nothing"
    link.answered(third)
    assert link.answered_at == 3.0 and not link.awaits_answer
    link.answered(99)
    assert link.answered_at == 3.0, "this was never asked"
    link.lost("cut", 4.0)
    assert link.answered_at is None and not link.awaits_answer


def test_a_new_connection_owes_no_answer_to_the_questions_of_the_one_before() -> None:
    link = connected_link()
    link.next_token(1.0)
    link.lost("cut", 2.0)
    link.connected(3.0)
    assert not link.awaits_answer and link.answered_at == 3.0


def test_after_a_halt_only_the_answer_to_a_new_question_makes_the_secondary_available() -> None:
    link = connected_link()
    before = link.next_token(1.0)
    assert link.available(1.0)
    assert link.ask_anew() == HEARTBEAT_S and link.ping_due(1.0), "the question is due at once"
    link.answered(before)
    assert not link.available(1.1)
    link.answered(link.next_token(1.2))
    assert link.available(1.3)


def test_without_a_connection_there_is_nothing_to_wait_for_and_nobody_available() -> None:
    link = Link(10.0, 0.0)
    assert link.ask_anew() == 0.0 and not link.available(0.0)
    assert link.answered_at is None and not link.silence(60.0)
    assert link.problem(60.0) == "not connected yet"


def test_a_silent_secondary_is_not_available_long_before_its_connection_is_given_up() -> None:
    link = connected_link()
    assert link.available(SILENT_S) and not link.problem(SILENT_S)
    words = f"nothing was heard from the secondary for {SILENT_S + 0.5:.1f} s"
    assert link.silence(SILENT_S + 0.5) == link.problem(SILENT_S + 0.5) == words
    assert not link.available(SILENT_S + 0.5) and not link.dead(SILENT_S + 0.5, waiting=True)
    link.heard(SILENT_S + 1)
    assert link.available(SILENT_S + 1)


def test_the_kernel_tells_of_an_interruption_before_the_heartbeat_does() -> None:
    link = connected_link()
    for now in (10.0, 12.0):
        link.heard(now)
        link.seen(UNANSWERED, now)
    assert link.silence(12.0).startswith("unanswered for") and not link.available(12.0)
    link.seen(NO_CARRIER, 12.0)
    assert link.silence(12.0) == "the interface eth0 has no carrier"
    assert link.dead(12.0 + GONE_PATIENCE_S, waiting=False) == "the interface eth0 has no carrier"


def test_a_tcp_figure_of_a_connection_that_is_over_counts_for_nothing() -> None:
    link = connected_link()
    link.lost("cut", 1.0)
    for now in (2.0, 20.0):
        link.seen(UNANSWERED, now)
    link.connected(21.0)
    link.seen(TcpView(3, 0.1, 0, None), 21.1)
    assert not link.problem(21.2)


def test_a_way_that_is_there_again_ends_an_attempt_without_one_but_no_connection() -> None:
    link = Link(10.0, 0.0)
    link.attempt()
    link.seen(NO_CARRIER, 1.0)
    assert not link.may_connect(2.0)
    link.seen(WHOLE, 2.0)
    assert link.may_connect(2.0)
    link.connected(3.0)
    link.seen(NO_CARRIER, 4.0)
    link.seen(WHOLE, 5.0)
    assert link.up and not link.may_connect(5.0)


def test_the_time_that_a_secondary_gets_begins_when_an_answer_is_owed() -> None:
    link = connected_link()
    for now in range(101):
        link.heard(float(now))
        assert not link.dead(float(now), waiting=False), "nothing is owed"
    patience_s = PROGRESS_PATIENCE * link.acknowledge_timeout_s
    link.heard(100.0 + patience_s)
    assert not link.dead(100.0, waiting=True) and not link.dead(100.0 + patience_s, waiting=True)
    link.heard(101.0 + patience_s)
    assert "acknowledged nothing" in link.dead(101.0 + patience_s, waiting=True)


def test_room_of_the_sender_is_counted_per_connection() -> None:
    link = connected_link()
    link.handed_over(4096)
    link.handed_over(4096)
    assert link.queued_bytes == 8192
    link.outbound(512)
    assert link.queued_bytes == 512
    link.lost("cut", 1.0)
    assert link.queued_bytes == 0
    link.outbound(1 << 30)
    link.handed_over(4096)
    link.connected(2.0)
    assert link.queued_bytes == 0, "the sender of the connection before told this late"


def test_without_a_connection_no_deadline_of_one_runs() -> None:
    link = Link(10.0, 0.0)
    for began in (False, True):
        if began:
            link.attempt()
        assert link.away is not began and not link.up
        link.heard(1.0)
        link.progress(1.0)
        link.forgive(1.0)
        link.answered(link.next_token(1.0))
        assert not link.dead(100.0, waiting=True) and not link.ping_due(100.0) and not link.awaits_answer
        assert link.problem(100.0) == "not connected yet"
    link.connected(100.0)
    assert link.up and not link.away and not link.problem(100.0)
    link.lost("cut", 101.0)
    assert link.away and link.problem(101.0) == "cut"


def test_questions_of_all_connections_have_different_tokens() -> None:
    link = connected_link()
    first = link.next_token(1.0)
    link.lost("cut", 2.0)
    link.connected(3.0)
    second = link.next_token(4.0)
    assert second > first
    link.answered(first)
    assert link.awaits_answer, "an answer to a question of the connection before"
