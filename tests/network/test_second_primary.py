"""Two primaries of one volume at one secondary, as a machine and a copy of it: the first one goes on as if nothing were."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.protocol.frames import BOOT, KEYED_DIGESTS, Ping, Pong, Refuse
from pydbt.core.protocol.refusals import refusal_words
from tests.lab.patience import until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame

SIZE = 1 << 20


def test_a_copy_of_the_machine_is_refused_and_told_loudly_once_and_the_original_goes_on(tmp_path: Path) -> None:
    original, copy = ((KEYED_DIGESTS, f"{BOOT}{boot}") for boot in ("one", "two"))
    with (
        SecondaryProcess(tmp_path, SIZE) as secondary,
        ScriptedPrimary(secondary.port, SIZE, features=original) as first,
    ):
        first.synchronize([blocks_frame(1, {0: b"a" * BLOCK})], 1)
        for number in range(3):
            first.send(Ping(number))
            assert first.hear(Pong) == Pong(number)
            first.heard.clear()
            with ScriptedPrimary(secondary.port, SIZE, features=copy) as second:
                assert isinstance(second.answer, Refuse) and second.answer.code == "second-primary"
                assert "another running primary" in refusal_words(second.answer.code)
        first.send(stream_frame(2, [(0, b"b" * BLOCK)]))
        first.until(lambda: first.ack.sequence == 2, "it is still served")
        until(lambda: "refused a second primary" in secondary.words(), "the log tells it")
        assert secondary.words().count("refused a second primary") == 1
        # One that is of the same machine, as after a kill, is let in at once.
        with ScriptedPrimary(secondary.port, SIZE, features=original) as again:
            assert again.welcome.sequence == 2
