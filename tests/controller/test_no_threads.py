"""A machine on which no thread can be started for a while: nobody is answered then, and everybody afterwards."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pydbt.controller.control import CLIENTS_MAX, ControlServer, call
from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.holder import Holder
from pydbt.controller.primary.job import Job
from pydbt.controller.primary.map_writer import MapWriter
from pydbt.controller.primary.outbox import Outbox
from pydbt.controller.secondary.connections import Connections
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import BusyError, MachineError, PydbtError
from pydbt.core.primary import events as ev
from pydbt.core.protocol.frames import Hello
from pydbt.core.secondary import events as e
from pydbt.device.writeout import Writeout
from pydbt.network.arena import Arena
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from pydbt.network.way_watch import WayWatch
from pydbt.store.volume_state import VolumeState
from tests.controller.volumes import GEOMETRY
from tests.lab.patience import until


class Threads:
    """Of a machine that has no room for more of them while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self._start = False, threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda thread: self.start(thread))

    def start(self, thread: threading.Thread) -> None:
        if self.full:
            raise RuntimeError("can't start new thread")
        self._start(thread)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


def test_commands_are_refused_for_that_time_and_no_place_is_lost(tmp_path: Path, threads: Threads) -> None:
    with ControlServer(tmp_path, lambda request, gone: {"answer": 1}):
        threads.full = True
        for _ in range(CLIENTS_MAX + 1):
            with pytest.raises(PydbtError, match="can't start new thread") as caught:
                call(tmp_path, {"command": "status"}, 10.0)
            assert caught.value.exit_code == BusyError.exit_code
        threads.full = False
        assert call(tmp_path, {"command": "status"}, 10.0) == {"answer": 1}


def test_a_controller_that_cannot_answer_does_not_begin_and_leaves_no_socket(tmp_path: Path, threads: Threads) -> None:
    threads.full = True
    with (
        pytest.raises(MachineError, match="no thread can be started"),
        ControlServer(tmp_path, lambda request, gone: {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    connections = Connections(listen("127.0.0.1", 0), Arena(1 << 20), lambda event: None)
    with pytest.raises(MachineError, match="no thread can be started"):
        connections.start()
    connections.stop()


def test_connections_are_closed_for_that_time_and_the_next_one_is_served(threads: Threads) -> None:
    heard: list[Any] = []
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    connections = Connections(listener, Arena(1 << 20), heard.append)
    connections.start()
    try:
        threads.full = True
        with socket.create_connection(("127.0.0.1", port)) as refused:
            refused.settimeout(30.0)
            assert refused.recv(1) == b""
        threads.full = False
        connection = FramedConnection(connect("127.0.0.1", port))
        connection.send_frames([Hello("ab" * 16, 1 << 20, 4096, 7)])
        until(lambda: any(isinstance(event, e.Connected) for event in heard), "the primary is heard")
        (event,) = heard
        threads.full = True
        connections.close(event.connection)  # in the loop's thread, which must not die of it
        threads.full = False
        connection.close()
    finally:
        connections.stop()


def test_a_wait_is_told_that_nothing_was_written_out_and_the_next_one_is_served(threads: Threads) -> None:
    writeout = Writeout(cast("Any", None), lambda device, at: ["left out"])
    threads.full = True
    for _ in range(2):
        refused = writeout.ask()
        assert refused.done.is_set() and refused.error and "can't start new thread" in str(refused.error)
    threads.full = False
    served = writeout.ask()
    assert served.done.wait(30.0) and served.left_out == ["left out"] and served.error is None


def test_maps_are_written_without_a_thread_too_and_in_their_order(threads: Threads) -> None:
    done: list[int] = []
    writer = MapWriter()
    threads.full = True
    writer.submit(lambda: done.append(1))
    writer.wait()
    threads.full = False
    writer.submit(lambda: done.append(2))
    writer.wait()
    writer.close()
    assert done == [1, 2]


def test_a_slow_step_ends_with_the_reason(threads: Threads) -> None:
    woken: list[str] = []
    threads.full = True
    job = Job("use", lambda: 1, lambda: woken.append("loop"))
    assert job.ended.is_set() and "can't start new thread" in job.error and job.result is None and woken == ["loop"]


def test_a_connection_that_cannot_send_is_lost_and_one_without_a_farewell_is_closed(threads: Threads) -> None:
    failed: list[str] = []
    connection = SimpleNamespace(close=lambda: failed.append("closed"), send_frames=lambda *_, **__: None)
    alive = Outbox(cast("Any", connection), None, failed.append)
    threads.full = True
    lost = Outbox(cast("Any", connection), None, failed.append)
    assert len(failed) == 1 and "can't start new thread" in failed[0]
    lost.close(flush_s=5.0)
    alive.close(flush_s=5.0)
    assert failed[1:] == ["closed", "closed"]
    alive.wait_for_farewell()


def test_reads_and_holds_are_answered_with_the_reason_and_begun_anew(threads: Threads) -> None:
    answers: list[Any] = []
    threads.full = True
    reader = SimpleNamespace(read_extent=lambda offset, length, into: None)
    blocks = BlockReader(cast("Any", reader), GEOMETRY, lambda: 7, answers.append)
    request = ev.ReadBlocks(1, Runs.of_blocks(np.array([3])))
    blocks.submit(request)
    state = VolumeState("ab" * 16, GEOMETRY.size_bytes, 4096, "/dev/x", {})
    holder = Holder(cast("Any", None), state, cast("Any", None), blocks, lambda: 7, answers.append)
    holder.ask(ev.Release(1))
    holder.close()
    assert len(answers) == 2 and all("can't start new thread" in answer.error for answer in answers)
    threads.full = False
    blocks.submit(request)
    until(lambda: len(answers) == 3, "the blocks are read")
    assert not answers[2].error
    blocks.close()


def test_without_its_thread_the_kernel_tells_of_no_way(threads: Threads) -> None:
    threads.full = True
    watch = WayWatch(lambda number, way: None)
    watch.look_at({1: ("10.0.0.2", "")})
    watch.close()
