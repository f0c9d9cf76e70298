"""The connection: alive, dead, due for another attempt."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.link import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Link


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
        link.connecting = True
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
    link.connecting = True
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
        link.connecting = True
        link.lost("refused", now)
    assert not link.may_connect(2.0)
    link.retry_now(2.0)
    assert link.may_connect(2.0)
    link.lost("cut", 3.0)
    assert link.may_connect(3.0), "what was not connected is not lost"
