"""A sustained stream of writes, durable at the secondary, against dd through TCP onto the same disk."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.figures.controllers import Controller, free_port, primary, secondary
from tests.lab.figures.disks import (
    direct_writer,
    disk_folder,
    end_with_parent,
    fill,
    loop_device,
    memory_folder,
    page_aligned,
    run,
    wait_until,
)
from tests.lab.figures.report import Figure, figure, ratios

NAME = "stream"
_CHUNK_BYTES = MIB
# The writer pauses while more than this is on its way: it is to keep the stream busy, not to outrun it.
_LAG_LIMIT_BYTES = 24 * MIB
_CHUNKS_A_LOOK = 8
# Each look costs the controller something; at a GB a second this is half of what may be on its way.
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
    """Bytes a second from the first write until the last one is durable, source in memory, replica on a disk."""
    rounds, size = (2, 256 * MIB) if quick else (5, 1024 * MIB)
    ours: list[float] = []
    theirs: list[float] = []
    with memory_folder(size) as source_folder, disk_folder(4 * size) as folder:
        fill(source_folder / "source.img", size)
        fill(folder / "copy.img", size, seed=2)
        fill(folder / "replica.img", size, seed=2)
        address = f"127.0.0.1:{free_port()}"
        with (
            loop_device(source_folder / "source.img", size) as disk,
            loop_device(folder / "replica.img", size, direct=True) as replica,
            loop_device(folder / "copy.img", size, direct=True) as copy,
            secondary(replica.path, folder / "secondary", address) as keeper,
            primary(disk.path, folder / "primary", address, "--whole-device") as source,
        ):
            wait_until(source.in_sync, "the first synchronization is done", 600)
            for turn in range(rounds):
                for streaming in (turn % 2 == 0, turn % 2 == 1):
                    _settle(keeper)
                    if streaming:
                        ours.append(_stream(disk.path, size, source, keeper, turn))
                    else:
                        theirs.append(_dd(disk.path, copy.path, size))
    measured = f"{statistics.median(ours) / 1e6:.0f} MB/s : {statistics.median(theirs) / 1e6:.0f} MB/s"
    return [figure(NAME, "durable stream : dd through TCP", measured, "x", ratios(ours, theirs), bar=0.5, goal=0.8)]


def _settle(keeper: Controller) -> None:
    """Nothing of the last turn is left to be written by the time the next one begins."""
    wait_until(lambda: not keeper.status()["unapplied_bytes"], "the journal is applied", 120)
    run("sync")


class _Interrupted(Exception):
    """The stream ended in between (log full): what was measured is a resynchronization."""


def _stream(device: Path, size_bytes: int, source: Controller, keeper: Controller, seed: int) -> float:
    """The first of a few attempts that no other work of the machine spoils."""
    for _ in range(_ATTEMPTS):
        _settle(keeper)
        try:
            return _stream_once(device, size_bytes, source, seed)
        except _Interrupted:
            wait_until(source.in_sync, "in sync again", 300)
    raise MachineError(f"the stream was interrupted {_ATTEMPTS} times: {source.last_words()}")


def _stream_once(device: Path, size_bytes: int, source: Controller, seed: int) -> float:
    """Write the whole device once, as fast as the stream keeps up, and wait until all is durable."""
    buffer = page_aligned(_CHUNK_BYTES)
    generator = np.random.default_rng(seed)
    buffer[:] = generator.bytes(_CHUNK_BYTES)
    words = np.frombuffer(buffer, np.uint64)
    resyncs = source.status()["statistics"]["resyncs"]
    descriptor = direct_writer(device)
    try:
        began = time.monotonic()
        for index in range(size_bytes // _CHUNK_BYTES):
            words += np.uint64(1)  # other bytes each time
            os.pwrite(descriptor, buffer, index * _CHUNK_BYTES)
            if index % _CHUNKS_A_LOOK == 0:
                while _on_the_way_bytes(source) > _LAG_LIMIT_BYTES:
                    time.sleep(_LOOK_INTERVAL_S)
        source.ask("wait")
        seconds = time.monotonic() - began
    finally:
        os.close(descriptor)
    if source.status()["statistics"]["resyncs"] != resyncs:
        raise _Interrupted
    return size_bytes / seconds


def _on_the_way_bytes(source: Controller) -> int:
    status = source.status()
    return max(status["lag_bytes"], status["queue"]["used"])


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
        reader.stdout.close()
        for process in (reader, sender, receiver):
            if process.wait(600):
                raise MachineError("the copy with dd failed")
        return size_bytes / (time.monotonic() - began)


@contextlib.contextmanager
def _receiver(target: Path) -> Iterator[tuple[subprocess.Popen, int]]:
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
    network.stdout.close()
    try:
        network.stderr.readline()
        yield writer, port
    finally:
        for process in (network, writer):
            process.kill()
            process.wait()
        network.stderr.close()
