"""A process without threads never waits for whoever reads its stderr."""

from __future__ import annotations

import os
import sys

import pytest

from pydbt.cli.responsive import write_without_waiting


def test_a_line_that_nobody_takes_at_once_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as taken, os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        write_without_waiting()
        assert sys.stderr is not stream
        assert sys.stderr.fileno() == writer and sys.stderr.writable() and not sys.stderr.isatty()
        print("caf\udce9", file=sys.stderr)
        assert taken.read(100) == b"caf\\udce9\n", "what is no text is escaped"
        for _ in range(100):
            sys.stderr.write("x" * 4095 + "\n")
        assert taken.read(1 << 20).count(b"\n") < 100, "the pipe was full"
