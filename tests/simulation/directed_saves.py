"""A story of the state file that is still on its way to the disk, while its primary has something to tell of it."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.protocol.frames import Frame, Generation
from pydbt.core.protocol.generations import Generations
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of


def a_name_that_is_not_on_the_disk_is_not_told() -> None:
    """The disk is busy when the content gets another name: a crash now would take that away."""
    name, sent, disk = Generations(5, (4,), (3,), shared=True), list[Frame](), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        volume = volume_of(Path(folder), SecondaryRecord(1, "h:1", SyncPhase.REPLICATING))
        peer = volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
        peer.connection._outbox = SimpleNamespace(put=lambda frames, _=0: sent.extend(frames))  # type: ignore[assignment]
        volume.map_writer.submit(lambda: disk.wait(60) and None)
        try:
            EffectRunner(volume).carry_out(
                [(None, ev.KeepAllGenerations({1: name})), (1, ev.SendFrame(Generation(name)))]
            )
            told_early = list(sent)
        finally:
            disk.set()
            volume.map_writer.wait()
        assert not told_early, "a secondary knows a name that its primary forgets in a crash"
        ended = volume.inbox.take(1.0)
        assert isinstance(ended, SaveEnded)
        Feed(volume).saved(ended)
        assert sent == [Generation(name)]
        volume.map_writer.close()
