"""A manager of services is told what it asked for, nothing more, and never holds anything up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from pydbt.posix import service_manager
from pydbt.posix.service_manager import NO_MANAGER, ServiceManager


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "notify"


@pytest.fixture
def heard(place: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(place))
        wire.setblocking(False)
        yield wire


def messages(wire: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(wire.recv(4096).decode())
        except BlockingIOError:
            return found


def environment_of(place: object, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(place), "HOME": "/root", **more}


def test_the_service_manager_hears_of_the_start_and_of_the_end(place: Path, heard: socket.socket) -> None:
    manager = ServiceManager.that_started_us(environment_of(place))
    manager.ready("tracked")
    manager.sign_of_life()
    manager.stopping()
    assert messages(heard) == ["READY=1\nSTATUS=tracked", "STOPPING=1"], "nobody waits for signs of life"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        name = f"pydbt-test-{os.getpid()}"
        wire.bind("\0" + name)
        wire.setblocking(False)
        ServiceManager.that_started_us(environment_of("@" + name)).stopping()
        assert messages(wire) == ["STOPPING=1"]


def test_no_child_speaks_for_this_process(place: Path, heard: socket.socket) -> None:
    environment = environment_of(place, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    ServiceManager.that_started_us(environment)
    assert environment == {"HOME": "/root"}


def test_a_sign_of_life_is_given_as_often_as_needed_and_not_at_each_turn(
    place: Path, heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(service_manager.time, "monotonic", lambda: now)
    manager = ServiceManager.that_started_us(environment_of(place, WATCHDOG_USEC="60000000"))
    assert manager.sign_interval_s == 15.0
    for _ in range(400):
        manager.sign_of_life()
        now += 0.1
    assert messages(heard) == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
    ],
)
def test_where_nobody_waits_for_a_sign_none_is_given(place: Path, heard: socket.socket, more: dict[str, str]) -> None:
    manager = ServiceManager.that_started_us(environment_of(place, **more))
    manager.sign_of_life()
    assert manager.sign_interval_s == inf and messages(heard) == []


def test_without_a_manager_nothing_is_sent() -> None:
    for manager in (NO_MANAGER, ServiceManager.that_started_us({"WATCHDOG_USEC": "1000000"})):
        manager.ready("")
        manager.sign_of_life()
        manager.stopping()
        assert manager.sign_interval_s == inf


def test_a_manager_that_does_not_listen_holds_nothing_up(place: Path) -> None:
    manager = ServiceManager.that_started_us(environment_of(place, WATCHDOG_USEC="4"))
    manager.ready("nobody is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(place))
        for _ in range(2000):  # more than its queue takes (net.unix.max_dgram_qlen)
            manager.stopping()
        wire.setblocking(False)
        assert 0 < len(messages(wire)) < 2000
