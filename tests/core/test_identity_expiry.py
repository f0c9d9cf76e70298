"""An identity that nobody can accept is known before anybody is asked; its end is told thirty days ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.identity_expiry import WARN_BEFORE, IdentityState, Lifetime, identity_problem, why_unusable

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LONG = timedelta(days=3650)


def identity(left: timedelta, authority_left: timedelta = LONG, *, begins: timedelta = -LONG, revoked: bool = False):
    return IdentityState(Lifetime(NOW + begins, NOW + left), Lifetime(NOW - LONG, NOW + authority_left), revoked)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=31), ""),
        (WARN_BEFORE + timedelta(seconds=1), ""),
        (WARN_BEFORE, "in 30 days"),
        (timedelta(days=2), "in 2 days"),
        (timedelta(hours=47, minutes=59), "in 47 hours"),
        (timedelta(minutes=59), "in less than an hour"),
        (timedelta(0), "expired at 2026-11-28T12:00:00+00:00: no connection can be made any more"),
        (timedelta(days=-400), "expired at"),
        (timedelta(days=-400), "(this machine's clock says 2026-11-28T12:00:00+00:00)"),
    ],
)
def test_the_end_of_an_identity_is_told_from_thirty_days_ahead_with_the_command_to_give(
    left: timedelta, words: str
) -> None:
    problem = identity_problem(identity(left), NOW)
    assert bool(problem) is bool(words) and words in problem
    assert not problem or ("pki issue --replace" in problem and "SIGHUP" in problem)
    of_the_authority = identity_problem(identity(LONG, left), NOW)
    assert bool(of_the_authority) is bool(words) and words in of_the_authority
    assert not words or (
        "authority" in of_the_authority and "pki renew" in of_the_authority and "SIGHUP" in of_the_authority
    )


SPANS = st.timedeltas(timedelta(days=-50), timedelta(days=50))


@given(SPANS, SPANS, SPANS, SPANS, st.booleans())
def test_the_worst_of_identity_and_authority_counts(
    begins: timedelta, ends: timedelta, authority_begins: timedelta, authority_ends: timedelta, revoked: bool
) -> None:
    state = IdentityState(
        Lifetime(NOW + begins, NOW + ends), Lifetime(NOW + authority_begins, NOW + authority_ends), revoked
    )
    valid = not revoked and max(begins, authority_begins) <= timedelta(0) < min(ends, authority_ends)
    assert bool(why_unusable(state, NOW)) is not valid
    if valid:
        assert bool(identity_problem(state, NOW)) is (min(ends, authority_ends) <= WARN_BEFORE)
    else:
        assert identity_problem(state, NOW) == why_unusable(state, NOW)
    assert state.ends == NOW + min(ends, authority_ends)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (identity(LONG, begins=timedelta(days=1)), "not valid before 2026-11-29T12:00:00+00:00"),
        (identity(LONG, revoked=True), "list of revoked keys"),
        (identity(timedelta(days=-1)), "this machine's identity expired"),
        (identity(timedelta(days=5), timedelta(days=-1)), "the authority of this machine's identity expired"),
    ],
)
def test_each_reason_has_its_sentence(state: IdentityState, words: str) -> None:
    assert words in why_unusable(state, NOW)
