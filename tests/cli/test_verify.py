"""The result of ``controller verify`` for secondaries that were removed while it waited: only a comparison is a success."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.cli.commands import verify
from pydbt.cli.render import verify_words
from pydbt.core.errors import TimedOut
from pydbt.core.seen.view import View

LAST = {"ended": "2026-01-01T00:00:00Z", "compared_bytes": 4096, "differing_bytes": 0}


def entry(name: str, last: dict[str, object] | None) -> dict[str, object]:
    return {"secondary": name, "mode": "normal", "connected": True, "verify": {"running": None, "last": last}}


@pytest.mark.parametrize("named", [True, False])
def test_a_secondary_that_was_removed_meanwhile_was_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    words = {"secondary": "beta:7790"} if named else {}
    left = [entry("gamma:7790", LAST)]
    monkeypatch.setattr(verify, "ask", lambda *_: {"secondaries": left})
    monkeypatch.setattr(verify, "_POLL_S", 0.0)
    before = {name: View({}) for name in (("beta:7790",) if named else ("beta:7790", "gamma:7790"))}
    with pytest.raises(TimedOut, match=r"^beta:7790: removed from the volume before it was compared$"):
        verify._await(Path("/state"), words, before, None, False)
    assert ("the same on both sides" in capsys.readouterr().out) is not named


def test_people_are_told_when_a_comparison_begins_that_rests_and_why() -> None:
    last = {"ended": "2026", "compared_bytes": 4096, "differing_bytes": 0}
    rest = {"until": "2026-01-02T03:04:05+00:00", "reason": "a write of an unknown kind"}
    words = verify_words(View({"running": None, "last": last, "rest": rest}))
    assert words == "begins again at 2026-01-02T03:04:05+00:00: a write of an unknown kind"
    assert "the same on both sides" in verify_words(View({"running": None, "last": last, "rest": None}))
