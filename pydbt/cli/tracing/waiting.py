"""Tells on stderr what a command waits for: after two seconds, and again every ten."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import click

FIRST_S, AGAIN_S = 2.0, 10.0


def _to_stderr(words: str) -> None:
    click.echo(words, err=True)


@contextlib.contextmanager
def told_while_waiting(
    words: str, say: Callable[[str], None] = _to_stderr, first_s: float = FIRST_S, again_s: float = AGAIN_S
) -> Iterator[None]:
    """As long as the block lasts. ``say`` is called by a thread, which does not keep the program from ending."""
    over = threading.Event()

    def tell() -> None:
        wait_s = first_s
        while not over.wait(wait_s):
            say(words)
            wait_s = again_s

    thread = threading.Thread(target=tell, name="told-while-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
