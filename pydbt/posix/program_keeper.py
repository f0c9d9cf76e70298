"""A process of its own, run by ``bounded_program``: it starts one program, and takes in all that the program leaves behind.

Whatever a process below this one forks, and in whatever session that is, this one stays above it (PR_SET_CHILD_SUBREAPER).

    python3 -I -S program_keeper.py REPORT LIMITS COMMAND...

The descriptor REPORT is told, a line each: ``group PID`` before the program can do anything, ``began PID`` or ``failed ERRNO``,
and then ``ended STATUS``, as of wait(2). LIMITS are those of setrlimit(2): ``KIND=NUMBER,...``. It ends when nothing is left
below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h


def _tell(report: int, word: str, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody looks any more
        os.write(report, f"{word} {number}\n".encode())


def _bound(limits: str) -> None:
    """Limits, and no better place than others when memory is short, which a service may have; for what is started too."""
    for kind, _, number in (limit.partition("=") for limit in limits.split(",")):
        with contextlib.suppress(OSError, ValueError):  # it may have less
            resource.setrlimit(int(kind), (int(number), int(number)))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("0")


def _start(report: int, command: list[str], environment: dict[bytes, bytes]) -> int:
    """The process of the program, in a session of its own. OSError when it cannot be started."""
    failed, tell_failed = os.pipe()
    if (program := os.fork()) == 0:
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(number, signal.SIG_DFL)
            # The program itself tells it: what it does first may be to kill its keeper.
            _tell(report, "group", os.getpid())
            os.execvpe(command[0], command, environment)
        except OSError as error:
            os.write(tell_failed, str(error.errno or 0).encode())
        finally:
            os._exit(127)
    os.close(tell_failed)
    with open(failed, "rb") as pipe:
        why = int(pipe.read() or b"-1")
    if why >= 0:
        os.waitpid(program, 0)
        raise OSError(why, os.strerror(why))
    return program


def main(words: list[str]) -> None:
    report, limits, *command = int(words[0]), words[1], *words[2:]
    os.set_inheritable(report, False)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        _tell(report, "failed", ctypes.get_errno())
        return
    _bound(limits)
    # Python itself sets this variable where there is no locale (PEP 538).
    given = {name: value for name, value in os.environb.items() if name != b"LC_CTYPE"}
    try:
        program = _start(report, command, given)
    except OSError as error:
        _tell(report, "failed", error.errno or 0)
        return
    _tell(report, "began", program)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for output in (1, 2):  # the end of the program's own is to be seen
        os.dup2(nowhere, output)
    while True:
        try:
            found, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        if found == program:
            _tell(report, "ended", status)


if __name__ == "__main__":
    main(sys.argv[1:])
