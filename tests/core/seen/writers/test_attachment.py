"""The programs that see who writes are attached by themselves only when the option asks for it, or the volume needs it."""

from __future__ import annotations

import pytest

from pydbt.core.seen.writers.attachment import BACK_FOR_S, LEFT_FOR_S, Attachment


def test_in_mode_normal_nothing_is_attached_by_itself() -> None:
    attachment = Attachment("auto")
    attachment.moved(0, follows=True)
    assert not attachment.is_wanted(0)


def test_a_volume_that_leaves_mode_normal_is_watched_until_it_was_back_for_a_minute() -> None:
    attachment = Attachment("auto")
    attachment.moved(0, follows=True)
    attachment.moved(10, follows=False)
    attachment.moved(500, follows=False)
    assert attachment.is_wanted(500) and attachment.left_normal_at == 10
    attachment.moved(501, follows=True)
    attachment.moved(502, follows=True)
    assert attachment.left_normal_at is None
    assert attachment.is_wanted(500 + BACK_FOR_S) and not attachment.is_wanted(501 + BACK_FOR_S)


def test_a_moment_out_of_mode_normal_attaches_nothing() -> None:
    attachment = Attachment("auto")
    attachment.moved(10, follows=False)
    assert not attachment.is_wanted(10 + LEFT_FOR_S / 2)
    attachment.moved(10 + LEFT_FOR_S / 2, follows=True)
    assert not attachment.is_wanted(11 + LEFT_FOR_S)


@pytest.mark.parametrize(("attribution", "wanted"), [("off", False), ("always", True)])
@pytest.mark.parametrize("follows", [True, False])
def test_off_and_always_do_not_depend_on_the_mode(attribution: str, wanted: bool, follows: bool) -> None:
    attachment = Attachment(attribution)
    attachment.moved(0, follows=follows)
    assert attachment.is_wanted(0) is wanted
