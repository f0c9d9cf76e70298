"""Threads that wait for controllers, a bounded number of them. The end of the program waits for none of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydbt.posix.threads import begin

_Result = TypeVar("_Result")


class Workers:
    """One thread per call. Lives in the server's loop.

    A ``ThreadPoolExecutor`` would hold the end up: Python joins its threads at exit, with ``shutdown(wait=False)`` too, and a
    controller that hangs answers after 25 seconds or never.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """Its result, or its error. A call whose caller has gone keeps its place until it is done."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Result] = loop.create_future()

        def work() -> None:
            try:
                told = partial(self._take, answer, call())
            except BaseException as error:
                told = partial(self._fail, answer, error)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told)

        try:
            begin(threading.Thread(target=work, name="dashboard-question", daemon=True))
        except BaseException:
            self._free.release()
            raise
        return await answer

    def _take(self, answer: asyncio.Future[_Result], result: _Result) -> None:
        self._free.release()
        if not answer.done():
            answer.set_result(result)

    def _fail(self, answer: asyncio.Future[_Result], error: BaseException) -> None:
        self._free.release()
        if not answer.done():
            answer.set_exception(error)
