"""The programs wake a controller that asks for it, with the first record after that, and nobody else."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.kernel.capture import Capture
from tests.lab.disks import Device, image, loop_over
from tests.lab.tracking import ADDRESSES, PAYLOAD, tracked

MIB = 1 << 20


@pytest.fixture(params=["payload", "addresses"])
def captured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Capture, Device]]:
    options = PAYLOAD if request.param == "payload" else ADDRESSES
    with loop_over(image(tmp_path / "disk.img", 16 * MIB)) as disk, tracked(disk, options) as capture:
        yield capture, disk


def write(disk: Device) -> None:
    descriptor = os.open(disk, os.O_WRONLY | os.O_SYNC)
    try:
        os.pwrite(descriptor, bytes(4096), 8192)
    finally:
        os.close(descriptor)


def rings(capture: Capture, seconds: float) -> bool:
    poll = select.poll()
    poll.register(capture.bell.fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_the_first_record_after_the_question_rings(captured: tuple[Capture, Device]) -> None:
    capture, disk = captured
    for _ in range(300):  # more often than the bell's page has room for
        capture.bell.ask()
        write(disk)
        assert rings(capture, 60)
        capture.bell.quiet()
        assert not rings(capture, 0)


def test_without_a_question_nothing_rings(captured: tuple[Capture, Device]) -> None:
    capture, disk = captured
    write(disk)
    assert not rings(capture, 0)
    while len(capture.drain()):
        pass
    capture.bell.ask()
    write(disk)
    write(disk)
    assert rings(capture, 60)
    capture.bell.quiet()
    write(disk)
    assert not rings(capture, 0)
