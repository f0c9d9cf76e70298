"""Another program, run to its end: what asks this process to end does not end its tools in the middle of their work."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

_GONE_S = 5.0
_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _signals_stay_here() -> Iterator[None]:
    """Meanwhile what this thread starts has the signals blocked that ask to end; a program inherits that (execve(2))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_tool(
    command: Sequence[str],
    given: str,
    environment: Mapping[str, str],
    timeout_s: float | None,
    *,
    cwd: str | None = None,
    errors: str = "surrogateescape",
) -> subprocess.CompletedProcess[str]:
    """Run a program that reads ``given``, and return what it has said. It has a session of its own, and those signals blocked.

    The end of a unit of systemd sends SIGTERM to each process of it, and Ctrl-C SIGINT to each of a terminal's group: a tool
    that LVM's locks or a device wait for would stop half-way, and its error would be taken for one of the device. Where this
    process is interrupted meanwhile, or after ``timeout_s`` (subprocess.TimeoutExpired), the tool is killed. OSError: it
    cannot be started.
    """
    with _signals_stay_here():
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors=errors,
            env=dict(environment), cwd=cwd, start_new_session=True,
        )  # fmt: skip
    try:
        output, messages = process.communicate(given, timeout_s)
    except BaseException:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that the kernel does not let go is not waited for
            process.wait(_GONE_S)
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return subprocess.CompletedProcess(command, process.returncode, output, messages)
