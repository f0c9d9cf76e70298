"""A sustained stream of writes, durable at the secondary, against dd through TCP onto the same disk."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import image, loop_over
from tests.lab.figures.folders import disk_folder, memory_folder
from tests.lab.figures.report import Figure, figure, ratios
from tests.lab.patience import run, until
from tests.lab.programs import Controller, end_with_parent, free_port, last_words
from tests.lab.raw import DirectWriter

NAME = "stream"
_CHUNK_BYTES = MIB
# The writer pauses while more than this is on its way: it is to keep the stream busy, not to outrun it.
_LAG_LIMIT_BYTES = 24 * MIB
_CHUNKS_A_LOOK = 8
# Each look costs the controller something; at a GB per second this is half of what may be on its way.
_LOOK_INTERVAL_S = 0.015
# The kernel's ring overflows when the controller gets no CPU for a moment.
_ATTEMPTS = 5
# Carries dd's bytes from its stdin to a socket, or the other way; the buffers are those of dd.
_PIPE = """
import os, socket, sys
address = ("127.0.0.1", int(sys.argv[2]))
buffer = memoryview(bytearray(1 << 20))
if sys.argv[1] == "send":
    with socket.create_connection(address) as connection:
        while count := os.readv(0, [buffer]):
            connection.sendall(buffer[:count])
else:
    with socket.create_server(address) as listener:
        print("ready", file=sys.stderr, flush=True)
        connection, _ = listener.accept()
        while count := connection.recv_into(buffer, len(buffer), socket.MSG_WAITALL):
            view = buffer[:count]
            while len(view):
                view = view[os.write(1, view):]
"""


def measure(quick: bool) -> list[Figure]:
    """Bytes per second from the first write until the last one is durable, source in memory, replica on a disk."""
    rounds, size = (2, 256 * MIB) if quick else (5, 1024 * MIB)
    ours: list[float] = []
    theirs: list[float] = []
    direct = "--direct-io=on"
    with (
        memory_folder(size) as source_folder,
        disk_folder(4 * size) as folder,
        loop_over(image(source_folder / "source.img", size, seed=1)) as disk,
        loop_over(image(folder / "replica.img", size, seed=2), direct) as replica,
        loop_over(image(folder / "copy.img", size, seed=2), direct) as copy,
        cluster(folder, disk, plain=True, primary_options=("--whole-device",), target=replica.path) as both,
    ):
        both.start()
        until(both.primary.is_normal, "the first synchronization is done", 600)
        for turn in range(rounds):
            for streaming in (turn % 2 == 0, turn % 2 == 1):
                _settle(both)
                if streaming:
                    ours.append(_stream(both, turn))
                else:
                    theirs.append(_dd(disk.path, copy.path, size))
    measured = f"{statistics.median(ours) / 1e6:.0f} MB/s : {statistics.median(theirs) / 1e6:.0f} MB/s"
    return [figure(NAME, "durable stream : dd through TCP", measured, "x", ratios(ours, theirs), bar=0.5, goal=0.8)]


def _settle(both: Cluster) -> None:
    """Nothing of the last turn is left to be written by the time the next one begins."""
    both.until_applied()
    run("sync")


class _Interrupted(Exception):
    """The stream ended in between (log full): a resynchronization was measured."""


def _stream(both: Cluster, seed: int) -> float:
    """The first of a few attempts that no other work of the machine spoils."""
    for _ in range(_ATTEMPTS):
        _settle(both)
        try:
            return _stream_once(both, seed)
        except _Interrupted:
            until(both.primary.is_normal, "in sync again", 300)
    raise MachineError(f"the stream was interrupted {_ATTEMPTS} times: {' / '.join(last_words(both.primary.log))}")


def _stream_once(both: Cluster, seed: int) -> float:
    """Write the whole device once, as fast as the stream keeps up, and wait until all is durable."""
    source = both.primary
    resyncs = source.status()["statistics"]["resyncs"]
    with DirectWriter(both.source.path, _CHUNK_BYTES, private=True) as writer:
        writer.memory[:] = np.random.default_rng(seed).bytes(_CHUNK_BYTES)
        words = np.frombuffer(writer.memory, np.uint64)
        began = time.monotonic()
        for index in range(both.size_bytes // _CHUNK_BYTES):
            words += np.uint64(1)  # other bytes each time
            writer.put_memory(index * _CHUNK_BYTES, _CHUNK_BYTES)
            if index % _CHUNKS_A_LOOK == 0:
                while _on_the_way_bytes(source) > _LAG_LIMIT_BYTES:
                    time.sleep(_LOOK_INTERVAL_S)
        source.ask("wait")
        seconds = time.monotonic() - began
    if source.status()["statistics"]["resyncs"] != resyncs:
        raise _Interrupted
    return both.size_bytes / seconds


def _on_the_way_bytes(source: Controller) -> int:
    status = source.status()
    return max(int(status["lag_bytes"]), int(status["queue"]["used"]))


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """The next process of a chain has its output."""
    assert process.stdout is not None
    process.stdout.close()


def _dd(source: Path, target: Path, size_bytes: int) -> float:
    with _receiver(target) as (receiver, port):
        began = time.monotonic()
        reader = subprocess.Popen(
            ["dd", f"if={source}", "iflag=direct", f"bs={_CHUNK_BYTES}", "status=none"],
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,
            process_group=0,
        )
        sender = subprocess.Popen(
            [sys.executable, "-c", _PIPE, "send", str(port)],
            stdin=reader.stdout,
            preexec_fn=end_with_parent,
            process_group=0,
        )
        _let_go(reader)
        for process in (reader, sender, receiver):
            if process.wait(600):
                raise MachineError("the copy with dd failed")
        return size_bytes / (time.monotonic() - began)


@contextlib.contextmanager
def _receiver(target: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """TCP into dd with direct, synced writes: the last process of the chain, and the port."""
    port = free_port()
    network = subprocess.Popen(
        [sys.executable, "-c", _PIPE, "receive", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=end_with_parent,
        process_group=0,
    )
    writer = subprocess.Popen(
        ["dd", f"of={target}", "oflag=direct,dsync", "iflag=fullblock", f"bs={_CHUNK_BYTES}", "status=none"],
        stdin=network.stdout,
        preexec_fn=end_with_parent,
        process_group=0,
    )
    assert network.stderr is not None
    _let_go(network)
    try:
        network.stderr.readline()
        yield writer, port
    finally:
        for process in (network, writer):
            process.kill()
            process.wait()
        network.stderr.close()
