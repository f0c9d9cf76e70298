"""A real secondary in a process of its own, and a primary that says exactly what a test wants."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frames import KEYED_DIGESTS, Ack, Begin, Blocks, Commit, Frame, Hello, Stream, Welcome
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from tests.lab.loaded import Process, loaded
from tests.lab.patience import until

VOLUME = "a1" * 16
EPOCH = 0x1234_5678_9ABC_DEF0
BLOCK = 4096

_PROGRAM = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.secondary.service import run_secondary
from pydbt.core.errors import PydbtError
try:
    sys.exit(run_secondary(SecondaryOptions(**eval(sys.argv[1]))))
except PydbtError as error:
    print(f"controller: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


class SecondaryProcess:
    """``controller secondary`` on a target and state directory below a folder."""

    def __init__(self, folder: Path, size: int = 64 << 20, **options: object) -> None:
        self.target = Path(options.pop("target", folder / "target.img"))
        self.state = Path(options.pop("state_dir", folder / "state"))
        self.log = folder / "secondary.log"
        self._options = {
            "target": self.target,
            "state_dir": self.state,
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "insecure": True,
            "create_bytes": size,
            **options,
        }
        self.process: subprocess.Popen | Process | None = None
        self.port = 0

    def start(self, **changes: object) -> SecondaryProcess:
        argument = repr({**self._options, **changes}).replace("PosixPath", "Path")
        command, quick = [sys.executable, "-c", _PROGRAM, argument], loaded(os.environ)
        with self.log.open("wb") as log:
            if quick is not None:
                self.process = quick.start(command, (log.fileno(), log.fileno()), os.environ)
            else:
                self.process = subprocess.Popen(command, stderr=log, stdout=log)
        until(self._listening, "the secondary listens")
        self.port = int(self._listening() or 0)
        return self

    def replay(self, **changes: object) -> str:
        """Run ``--replay-only``; what it printed."""
        argument = repr({**self._options, "replay_only": True, **changes}).replace("PosixPath", "Path")
        command = [sys.executable, "-c", _PROGRAM, argument]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def words(self) -> str:
        return self.log.read_text()

    def __enter__(self) -> SecondaryProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _listening(self) -> str | None:
        found = re.search(r"listening on \S+:(\d+) ", self.words())
        if found is None and self.process.poll() is not None:
            raise AssertionError(f"the secondary ended: {self.words()}")
        return found and found.group(1)


class Closed(AssertionError):
    """The secondary closed the connection before what a test waits for was there."""


class ScriptedPrimary:
    """One connection of a primary. Keeps the last ACK and whatever else was heard."""

    def __init__(
        self, port: int, size: int, *, volume: str = VOLUME, epoch: int = EPOCH, block: int = BLOCK,
        features: tuple[str, ...] = (KEYED_DIGESTS,),
    ) -> None:  # fmt: skip
        self.connection = FramedConnection(connect("127.0.0.1", port))
        self.connection.send_frames([Hello(volume, size, block, epoch, features=features)])
        self.ack = Ack(0)
        self.heard: list[Frame] = []
        self.answer = self.connection.recv_frame()
        self.ended = False

    @property
    def welcome(self) -> Welcome:
        assert isinstance(self.answer, Welcome), self.answer
        return self.answer

    @property
    def digest(self) -> UnitDigest:
        """Made with the key that the secondary told."""
        assert self.welcome.digest_key is not None
        return UnitDigest(bytes.fromhex(self.welcome.digest_key))

    def send(self, *frames: Frame) -> None:
        self.connection.send_frames(frames)

    def until(self, condition: Callable[[], bool], description: str) -> None:
        """Receive until a condition holds."""
        while not condition():
            frame = self.connection.recv_frame()
            if frame is None:
                raise Closed(f"closed while waiting until {description}; heard {self.heard}")
            if isinstance(frame, Ack):
                self.ack = frame
            else:
                self.heard.append(frame)

    def hear(self, kind: type) -> Frame:
        """The next frame of a kind."""
        self.until(lambda: any(isinstance(frame, kind) for frame in self.heard), f"a {kind.__name__} arrives")
        return next(frame for frame in self.heard if isinstance(frame, kind))

    def synchronize(self, frames: list[Frame], sequence: int, resync: int = 1, planned: int = 1 << 20) -> None:
        """A whole resync."""
        self.send(Begin(resync, EPOCH, planned), *frames, Commit(resync, sequence))
        self.until(lambda: self.ack.resync_committed == resync, "the resync is committed")

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> ScriptedPrimary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def blocks_frame(batch: int, content: dict[int, bytes]) -> Blocks:
    """A BLOCKS frame of whole blocks by number."""
    numbers = sorted(content)
    table = SectorTable.of([number * BLOCK // 512 for number in numbers], [BLOCK // 512] * len(numbers))
    return Blocks(batch, table, tuple(content[number] for number in numbers))


def stream_frame(first: int, writes: list[tuple[int, bytes]]) -> Stream:
    """A STREAM frame of writes (block number, content), one sequence each."""
    lengths = [len(data) // 512 for _, data in writes]
    table = SectorTable.of([n * BLOCK // 512 for n, _ in writes], lengths, 1, np.arange(len(writes)))
    return Stream(first, first + len(writes) - 1, table, tuple(data for _, data in writes))
