"""Runs every configured volume of a role: a child process for each, forked from this one, which has imported everything once.

It has no thread of its own, so that a fork copies no lock that somebody holds. It sleeps until a signal or a deadline.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from pydbt.controller.supervisor_file import supervising, write_report
from pydbt.core.calendar import in_utc
from pydbt.core.configured.supervision import Condition, Order, Renew, Start, Stop, Supervision, Tell, Wanted
from pydbt.core.errors import PydbtError, UsageError
from pydbt.posix.libc import PR_SET_PDEATHSIG, prctl
from pydbt.posix.service_manager import NO_MANAGER, ServiceManager

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
UP_SIGNAL = signal.SIGUSR1
"""``controller up --all``."""
_LONGEST_SLEEP_S = 3600.0
_REASON_BYTES = 4096  # one write to a pipe of this size is never torn (pipe(7), PIPE_BUF)

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Child:
    """A volume as it is to be started. ``serve`` runs in the new process until it is stopped: its exit code and its error."""

    wanted: Wanted
    place: str
    state_dir: str
    serve: Callable[[], tuple[int, str]] | None = None


@dataclass(slots=True)
class _Process:
    name: str
    reasons: int  # the descriptor from which the end of its output is read
    reason: str = ""


class Supervisor:
    """``configured`` reads the configuration, in ``folder``. ``role`` is the command: ``run`` or ``secondary``.

    ``manager`` started this process.
    """

    def __init__(
        self,
        role: str,
        folder: Path,
        configured: Callable[[], dict[str, Child]],
        manager: ServiceManager = NO_MANAGER,
    ) -> None:
        self._role, self._folder, self._configured, self._manager = role, folder, configured, manager
        self._supervision = Supervision()
        self._children: dict[str, Child] = {}
        self._processes: dict[int, _Process] = {}
        self._worst, self._begun, self._asked_up = 0, False, 0
        self._lock = -1

    def run(self) -> int:
        """Until everything has ended, or it is stopped; the exit code. BusyError: another process runs these volumes."""
        with supervising(self._role, self._folder) as self._lock:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                gc.collect()
                gc.freeze()  # so that a child's collector writes to no page that all of them share
                self._take(self._configured())
                self._manager.ready("each volume runs in a process of its own; 'controller status' says how")
                while not self._supervision.over:
                    self._report()
                    self._wait()
            finally:
                gc.unfreeze()
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        broken = any(member.condition is Condition.BROKEN for member in self._supervision.members.values())
        return UsageError.exit_code if broken and not self._begun else self._worst

    # --- what happens -------------------------------------------------------------------------------------
    def _wait(self) -> None:
        self._manager.sign_of_life()
        deadline = self._supervision.deadline()
        left = _LONGEST_SLEEP_S if deadline is None else max(deadline - time.monotonic(), 0.0)
        heard = signal.sigtimedwait(_SIGNALS, min(left, _LONGEST_SLEEP_S, self._manager.sign_interval_s))
        number = heard.si_signo if heard is not None else None
        if number in (signal.SIGTERM, signal.SIGINT):
            self._manager.stopping()
            self._carry_out(self._supervision.stop())
        elif number == signal.SIGHUP:  # also when a terminal is closed, which ends no controller
            _log.info("reading the configuration again")
            self._reload()
        elif number == UP_SIGNAL:
            self._reload()
            self._carry_out(self._supervision.up(time.monotonic()))
            self._asked_up += 1
        self._reap()
        self._carry_out(self._supervision.due(time.monotonic()))

    def _reload(self) -> None:
        try:
            self._take(self._configured())
        except PydbtError as error:
            _log.error("%s; everything runs on as before", error)
        except Exception as error:  # whatever the machine lacks at the moment ends no volume
            _log.error("the configuration cannot be read: %s; everything runs on as before", str(error) or repr(error))

    def _take(self, found: dict[str, Child]) -> None:
        running = {name for name, member in self._supervision.members.items() if member.condition is Condition.RUNNING}
        for name, child in found.items():
            if child.wanted.problem and name in running:
                continue  # it runs on with what it was started with
            self._children[name] = child
        self._carry_out(
            self._supervision.reload({name: child.wanted for name, child in found.items()}, time.monotonic())
        )

    def _reap(self) -> None:
        for process in list(self._processes):
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    self._has_ended(self._processes.pop(process), os.waitstatus_to_exitcode(status))

    def _has_ended(self, process: _Process, code: int) -> None:
        with contextlib.suppress(BlockingIOError):
            process.reason = os.read(process.reasons, _REASON_BYTES).decode(errors="replace")
        os.close(process.reasons)
        reason = process.reason if code >= 0 else f"was killed by {_signal_name(-code)}"
        if self._supervision.spoils_the_stop(process.name, code):
            self._worst = self._worst or code
            _log.error("%s: %s", process.name, reason or f"ended with exit code {code}")
        self._carry_out(self._supervision.ended(process.name, code, reason, time.monotonic()))

    # --- what is done -------------------------------------------------------------------------------------
    def _carry_out(self, steps: list[Order]) -> None:
        for step in steps:
            match step:
                case Start(name):
                    self._start(name)
                case Stop(name):
                    self._send(name, signal.SIGTERM)
                case Renew(name):
                    self._send(name, signal.SIGHUP)
                case Tell(name, words, is_error):
                    _log.log(logging.ERROR if is_error else logging.INFO, "%s: %s", name, words)

    def _send(self, name: str, number: signal.Signals) -> None:
        for process, known in self._processes.items():
            if known.name == name:
                os.kill(process, number)

    def _start(self, name: str) -> None:
        parent = os.getpid()
        pipe: tuple[int, ...] = ()
        try:
            reasons, last_words = pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            process = os.fork()
        except OSError as error:  # descriptors, processes or memory: a failure of this volume, and no other's
            for descriptor in pipe:
                os.close(descriptor)
            reason = f"its process cannot be started: {error.strerror}"
            return self._carry_out(self._supervision.ended(name, 1, reason, time.monotonic()))
        self._begun = True
        if process:
            os.close(last_words)
            self._processes[process] = _Process(name, reasons)
            return
        os.close(reasons)
        self._be_child(name, last_words, parent)

    def _be_child(self, name: str, last_words: int, parent: int) -> NoReturn:
        """Serve one volume, and end this process, whatever happens: it never returns into its parent's stack."""
        code, reason = 1, "its process did not begin"
        try:
            os.setpgid(0, 0)  # Ctrl-C goes to the supervisor alone, which stops each of them once
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(0)
            with contextlib.suppress(OSError):
                _name_process(f"pydbt:{name}")
            os.close(self._lock)
            for process in self._processes.values():
                os.close(process.reasons)
            for number in _SIGNALS:
                signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
            signal.signal(signal.SIGHUP, lambda *_: None)  # before it listens there is nothing to read again
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            gc.enable()
            serve = self._children[name].serve
            assert serve is not None, "a volume with a problem is not started"
            code, reason = serve()
        finally:
            with contextlib.suppress(OSError):
                if reason:
                    os.write(last_words, reason.encode()[:_REASON_BYTES])
            os._exit(code)

    # --- the report ---------------------------------------------------------------------------------------
    def _report(self) -> None:
        now, at = time.monotonic(), datetime.now(UTC).timestamp()
        processes = {known.name: process for process, known in self._processes.items()}
        volumes: list[dict[str, Any]] = []
        for name, member in self._supervision.members.items():
            child = self._children[name]
            volumes.append(
                {
                    "name": name,
                    "place": child.place,
                    "state_dir": child.state_dir,
                    "phase": str(member.condition),
                    "process": processes.get(name),
                    "failure": member.failure,
                    "failures": member.failures,
                    "since": _moment(at + member.since - now),
                    "next_start": None if member.start_at is None else _moment(at + member.start_at - now),
                }
            )
        write_report(self._role, self._folder, {"process": os.getpid(), "asked_up": self._asked_up, "volumes": volumes})


def _moment(seconds: float) -> str:
    return in_utc(datetime.fromtimestamp(seconds, UTC), "seconds")


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"


def _name_process(name: str) -> None:
    """The name that ps(1) and top(1) show; 15 bytes of it."""
    Path("/proc/self/comm").write_text(name[:15])
