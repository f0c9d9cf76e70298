"""Test fixtures of the dashboard: a real Chromium, and the pages over made-up volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.page_bench.server import PageBench

if TYPE_CHECKING:
    from tests.lab.browser import Tab


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.lab.browser import browser  # only here: other tests of this folder need no browser

    with browser() as started:
        yield started


@pytest.fixture
def bench() -> Iterator[PageBench]:
    with PageBench() as made:
        yield made


@pytest.fixture
def tab(chromium: Any, bench: PageBench) -> Iterator[Callable[..., Tab]]:
    """Opens tabs that fail the test when something went wrong in them: an error, a violation of the policy, another origin."""
    from tests.lab.browser import Tab

    with contextlib.ExitStack() as stack:

        def open_tab(path: str = "", size: str = "laptop", **options: Any) -> Tab:
            opened = Tab(chromium, bench.address, size, **options)
            stack.callback(opened.close)
            opened.go(path)
            return opened

        yield open_tab
