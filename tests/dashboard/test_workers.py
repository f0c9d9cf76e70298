"""Threads that wait for controllers: bounded, and each answer or error reaches who asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from pydbt.core.errors import NotRunning
from pydbt.dashboard.workers import Workers

Result = TypeVar("Result")


def run(work: Coroutine[None, None, Result]) -> Result:
    """In a thread of its own: the one of the tests has a running loop once a browser was driven."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def test_a_result_and_an_error_reach_who_asked() -> None:
    def fails() -> int:
        raise NotRunning("no controller is running")

    async def ask() -> None:
        workers = Workers(1)
        assert await workers.run(lambda: 7) == 7
        with pytest.raises(NotRunning):
            await workers.run(fails)
        assert await workers.run(lambda: 8) == 8, "its place is free again"

    run(ask())


def test_a_call_whose_caller_has_gone_keeps_its_place_until_it_is_done() -> None:
    answered, begun = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        answered.wait()

    async def ask() -> None:
        workers = Workers(1)
        gone = asyncio.create_task(workers.run(hangs))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        gone.cancel()
        later = asyncio.create_task(workers.run(lambda: 7))
        await asyncio.sleep(0.05)
        assert not later.done(), "there is one thread alone"
        answered.set()
        assert await later == 7

    run(ask())


def test_the_end_waits_for_no_call() -> None:
    async def ask() -> threading.Thread:
        asked = asyncio.create_task(Workers(1).run(answered.wait))
        while not (found := [one for one in threading.enumerate() if one.name == "dashboard-question"]):
            await asyncio.sleep(0.01)
        asked.cancel()
        return found[0]

    answered = threading.Event()
    thread = run(ask())
    assert thread.daemon and thread.is_alive()
    answered.set()
    thread.join()
