"""How commands reach a running controller: a Unix socket in its state directory, JSON lines.

A request is one object with a ``command``; the answer is ``{"ok": true, "result": {...}}`` or
``{"ok": false, "error": {"exit_code": n, "message": "..."}}``. Only root, or who may enter the state
directory, gets to the socket (mode 0600).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydbt.controller.state_dir import AS_THAT_USER, check_state_dir
from pydbt.core.calendar import in_utc
from pydbt.core.errors import BusyError, MachineError, NotRunning, PydbtError, StateError, TimedOut
from pydbt.network.local import peer_of, require_listener
from pydbt.posix.files import LONGEST_SOCKET_WAIT_S
from pydbt.posix.ownership import other_owner, own_users, read_own, user_name
from pydbt.posix.threads import begin

SOCKET_NAME = "control.sock"
SAVED_STATUS_NAME = "status.json"
SAVE_STATUS_INTERVAL_S = 5.0
"""How often a controller saves its status while something goes on: a killed one left no older one than that."""
# A request of the command line is far below this; a longer one comes from another program.
_REQUEST_BYTES_MAX = 64 * 1024
_ANSWER_BYTES_MAX = 4 * 1024 * 1024
# Clients are people and monitoring. More of them at once are refused, so that the number of threads is bounded.
CLIENTS_MAX = 64
_SEND_TIMEOUT_S = 10.0
# One that asks for nothing gives its place to others.
_IDLE_S = 60.0
# As often it is seen whether the socket is still there: who tidies up a folder, or restores it, removes it.
_LOOK_S = 10.0

_HELD = {"primary": ("outdated", "stopped"), "secondary": ("consistent", "offline")}
"""The best replica state without a controller, and its mode."""
_LASTING_MODES = ("stopped", "offline", "refused", "removed", "demoted", "promoted")

_log = logging.getLogger(__name__)

ClientGone = Callable[[], bool]
"""Whether the client whose request is being answered has closed its connection, or has died."""

Handler = Callable[[dict[str, Any], ClientGone], dict[str, Any]]


class ControlServer:
    """Answers commands in threads of its own, one per client, until it is stopped.

    ``handler`` takes a request and returns the result. It is called from several threads at once. It may block (a wait
    does), and then it looks now and then whether its client is gone. A ``PydbtError`` that it raises reaches the client as
    that error.
    """

    def __init__(self, path: str | os.PathLike[str], handler: Handler, group: int | None = None) -> None:
        """``group``: its members may use the socket too; by default only its owner may."""
        self.path = socket_path(path)
        self._group = group
        self._handler = handler
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._clients: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._stopping = False
        self._problem = ""
        self._inode = 0

    def make(self) -> None:
        """Make the socket; nobody can connect before ``start``. BusyError when another controller answers at the same place.

        A dead one's socket is replaced. It takes CAP_CHOWN to give it to a group.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._clear_place()
            with _short_name(self.path) as name:
                listener.bind(name)
            if self._group is not None:
                os.chown(self.path, -1, self._group)
            # Before listen: nobody can have connected until here.
            os.chmod(self.path, 0o600 if self._group is None else 0o660)
            self._inode = os.stat(self.path).st_ino
        except OSError as error:
            listener.close()
            raise StateError(f"the control socket {self.path} cannot be made: {error.strerror}") from error
        except PydbtError:
            listener.close()
            raise
        self._listener = listener

    def start(self) -> None:
        """Listen; with ``make`` before it, if that was not called. MachineError when it cannot have a thread."""
        if self._listener is None:
            self.make()
        assert self._listener is not None
        self._listen()
        thread = threading.Thread(target=self._accept, name="control", daemon=True)
        try:
            begin(thread)
        except MachineError:
            self.stop()
            raise
        self._thread = thread

    def _listen(self) -> None:
        assert self._listener is not None
        self._listener.settimeout(_LOOK_S)
        self._listener.listen(16)

    def stop(self) -> None:
        """Close the socket and every client's connection; harmless when stopped already."""
        with self._making:
            self._stopping = True
            listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    os.unlink(self.path)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        with self._lock:
            clients, threads = list(self._clients), list(self._threads)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # an answer under way may still be sent
        for thread in threads:
            thread.join(timeout=_SEND_TIMEOUT_S)

    def __enter__(self) -> ControlServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _clear_place(self) -> None:
        if not self.path.exists():
            return
        try:
            with _short_name(self.path) as name:
                require_listener(name)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            return
        except FileNotFoundError:
            return
        raise BusyError(f"a controller is already running with the state directory {self.path.parent}")

    def _make_again(self) -> None:
        """Where somebody has removed the socket, nobody reaches this controller: a new one is made."""
        with self._making:
            if self._stopping or os.path.lexists(self.path):
                return
            removed = self._listener
            try:
                self.make()
                self._listen()
            except (PydbtError, OSError) as error:
                self._listener = removed
                if str(error) != self._problem:
                    _log.warning("%s was removed, and cannot be made again: %s", self.path, error)
                self._problem = str(error)
                return
        self._problem = ""
        if removed is not None:
            removed.close()
        _log.warning("%s was removed, and is made again", self.path)

    def _accept(self) -> None:
        while (listener := self._listener) is not None:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                self._make_again()
                continue
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.1)  # for example, out of descriptors: try again, without spinning
                continue
            with self._lock:
                full = len(self._clients) >= CLIENTS_MAX
                if not full:
                    self._clients.add(client)
            if full:
                _turn_away(
                    client, f"the controller answers {CLIENTS_MAX} commands already: try again when some have ended"
                )
                continue
            thread = threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True)
            with self._lock:
                self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:  # no memory for a thread, or too many of them: its place is free again
                with self._lock:
                    self._clients.discard(client)
                    self._threads.discard(thread)
                _turn_away(client, f"the controller cannot answer now: {error}")

    def _serve(self, client: socket.socket) -> None:
        try:
            for line in _lines(client, _REQUEST_BYTES_MAX, _IDLE_S):
                if _is_gone(client):
                    return  # it was told that nothing was done: this process had stood still
                answer = self._answer(line, lambda: _is_gone(client))
                client.settimeout(_SEND_TIMEOUT_S)
                client.sendall(json.dumps(answer).encode() + b"\n")
        except (OSError, ValueError):
            pass  # the client went away, or does not speak this protocol
        finally:
            with self._lock:
                self._clients.discard(client)
                self._threads.discard(threading.current_thread())
            client.close()

    def _answer(self, line: bytes, gone: ClientGone) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            return _failure(2, "a request is a JSON object with a command")
        try:
            return {"ok": True, "result": self._handler(request, gone)}
        except PydbtError as error:
            return _failure(error.exit_code, str(error))
        except Exception:
            _log.exception("the command %s failed", request["command"])
            return _failure(1, f"the command {request['command']} failed inside the controller: see its log")


def call(path: str | os.PathLike[str], request: dict[str, Any], timeout_s: float | None = 10.0) -> dict[str, Any]:
    """Send one request to the controller whose socket, or state directory, ``path`` names; its result.

    A command is given only to a process of root, of this user, or of the user who called sudo (StateError), and in a
    directory that is safe from others, who could have put a link to another controller's socket there (UsageError). Only its
    status may be asked of any other: that of another user's secondary, in a directory of that user, has ``user``.

    NotRunning when nothing listens, BusyError when too many wait to be taken in, TimedOut when no whole answer came within
    ``timeout_s`` (None waits for ever), and the error of the controller's answer, with its own exit code.
    """
    place = socket_path(path)
    until = None if timeout_s is None else time.monotonic() + timeout_s
    if request.get("command") != "status":
        check_state_dir(place.parent, AS_THAT_USER)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        client.settimeout(None if timeout_s is None else min(timeout_s, LONGEST_SOCKET_WAIT_S))
        try:
            with socket_itself(place) as (name, owner):
                client.connect(name)
            stranger = stranger_of(client, owner, place, request)
            with contextlib.suppress(BrokenPipeError):  # it has answered without asking
                client.sendall(json.dumps(request).encode() + b"\n")
            answer = next(_lines(client, _ANSWER_BYTES_MAX, until and until - time.monotonic()), None)
        except BlockingIOError as error:
            raise BusyError(f"the controller of {place.parent} takes in no command now: try again") from error
        except TimeoutError as error:
            raise TimedOut(f"the controller of {place.parent} gave no answer within {timeout_s:g} s") from error
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NotRunning(f"no controller is running with the state directory {place.parent}") from error
        except PermissionError as error:
            raise StateError(f"the control socket {place} may not be used: run this as root, with sudo") from error
        except OSError as error:
            raise NotRunning(f"the controller of {place.parent} ended while it was asked: {error.strerror}") from error
        except ValueError as error:
            raise StateError(f"{place} is answered by something that is no controller: {error}") from error
    if answer is None:
        raise NotRunning(f"the controller of {place.parent} ended while it was asked")
    return read_answer(answer, place, stranger)


def read_answer(answer: bytes, place: Path, stranger: str = "") -> dict[str, Any]:
    """The result in the line of an answer; the error in it is raised. ``stranger``: as of ``stranger_of``."""
    return _result(answer, place) if not stranger else _result_of(stranger, answer, place)


def stranger_of(client: socket.socket, owner: int, place: Path, request: dict[str, Any]) -> str:
    """The user whose process answers, when it is another one whose secondary may be asked; empty when it is our own.

    ``owner`` is that of the state directory. StateError when its answer must not be used: it may be anybody who can write to
    the directory.
    """
    process, user = peer_of(client)
    if user in own_users():
        return ""
    if os.geteuid() == 0 and user == owner and request.get("command") == "status":
        return user_name(user)
    raise StateError(
        f"a process of user {user_name(user)} (PID {process}) answers at {place}, and must be one of root or your own: end it, "
        f"and see who may write to {place.parent}"
    )


def _result_of(stranger: str, answer: bytes, place: Path) -> dict[str, Any]:
    """The status of another user's secondary, with its ``user``. Nobody but root has a primary."""
    try:
        status = _result(answer, place)
    except PydbtError as error:
        raise StateError(f"the process of user {stranger} that answers at {place} gave no status: {error}") from None
    if status.get("role") != "secondary":
        raise StateError(
            f"the process of user {stranger} that answers at {place} is no secondary, and only root has others: its answer "
            "is not used"
        )
    return {**status, "user": stranger}


def _turn_away(client: socket.socket, words: str) -> None:
    """Tell one too many that it is. Whoever accepts must not wait for it: an answer of this size fits into its socket."""
    with contextlib.suppress(OSError):
        client.setblocking(False)
        client.sendall(json.dumps(_failure(BusyError.exit_code, words)).encode() + b"\n")
    client.close()


def _is_gone(client: socket.socket) -> bool:
    """Whether both directions of its connection are closed; one that only sends nothing more waits for its answer."""
    poll = select.poll()
    poll.register(client, 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


def is_answering(path: str | os.PathLike[str]) -> bool:
    """Whether a controller listens on the socket or in the state directory ``path`` names."""
    try:
        with socket_itself(socket_path(path)) as (name, _):
            require_listener(name)
    except (OSError, StateError):
        return False
    return True


def socket_path(path: str | os.PathLike[str]) -> Path:
    """The control socket of a state directory, or the socket itself."""
    place = Path(path)
    return place if place.suffix == ".sock" else place / SOCKET_NAME


def write_saved_status(state_dir: str | os.PathLike[str], status: dict[str, Any]) -> None:
    """Keep a status for the time when no controller answers. The file is always whole; it is not waited for to be durable."""
    from pydbt.posix.atomic import replace_file  # only here, because most commands do without it

    saved = {**status, "saved_at": _now()}
    replace_file(Path(state_dir) / SAVED_STATUS_NAME, json.dumps(saved).encode() + b"\n", durable=False)


def read_saved_status(state_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The last status that was kept; None when there is none, it cannot be used, or it is another user's.

    It tells of a controller that has ended, as if that had ended cleanly: nothing is connected, and nothing followed since.
    """
    if other_owner(state_dir):
        return None
    try:
        saved = parsed_json(read_own(Path(state_dir) / SAVED_STATUS_NAME))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(saved, dict):
        return None
    secondaries = saved.get("secondaries", [])
    if not isinstance(secondaries, list) or not all(isinstance(status, dict) for status in secondaries):
        return None
    if held := _HELD.get(str(saved.get("role"))):
        for status in [saved, *secondaries]:
            _end(status, *held)
    return saved


def _end(status: dict[str, Any], state: str, mode: str) -> None:
    """Take the words of a run out of a status that was saved: its controller may have been killed."""
    if status.get("replica_state") in ("up-to-date", "consistent"):
        status["replica_state"] = state
    if status.get("mode") is not None and status["mode"] not in _LASTING_MODES:
        status |= {"mode": mode} | ({"mode_since": None} if "mode_since" in status else {})
    status |= {name: none for name, none in (("connected", False), ("silent_seconds", None)) if name in status}


def _result(answer: bytes, place: Path) -> dict[str, Any]:
    try:
        content = parsed_json(answer)
        if content["ok"]:
            return dict(content["result"])
        code, message = int(content["error"]["exit_code"]), str(content["error"]["message"])
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{place} is answered by something that is no controller") from error
    failure = PydbtError(message)
    failure.exit_code = code if 0 < code < 256 else StateError.exit_code  # an error is never success, whoever answers
    raise failure


def parsed_json(text: str | bytes) -> Any:
    """JSON, with None in the place of what is no number for JSON (NaN, infinity): others read what is printed of it."""
    return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _failure(exit_code: int, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"exit_code": exit_code, "message": message}}


def _lines(connection: socket.socket, bytes_max: int, limit_s: float | None) -> Iterator[bytes]:
    """Whole lines from a connection until it ends; ValueError when one is longer than ``bytes_max``.

    TimeoutError when one was not whole within ``limit_s`` after it was asked for: one that comes byte by byte is late too.
    """
    pending = bytearray()
    until = None if limit_s is None else time.monotonic() + limit_s
    while True:
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            yield line
            until = None if limit_s is None else time.monotonic() + limit_s
        if len(pending) > bytes_max:
            raise ValueError("a line is too long")
        if until is not None and (left_s := until - time.monotonic()) > 0:
            connection.settimeout(min(left_s, LONGEST_SOCKET_WAIT_S))
        elif until is not None:
            raise TimeoutError
        try:
            received = connection.recv(65536)
        except TimeoutError:
            continue  # it is over, or only a part of it that the kernel can count
        if not received:
            return
        pending += received


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name of the socket short enough for ``sun_path`` (108 bytes), however long its folder's name is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def socket_itself(path: Path) -> Iterator[tuple[str, int]]:
    """A short name of the socket at a path, for as long as this lasts, and the owner of its folder.

    StateError when a link is there: whoever may write to the folder could lead a question to another controller with it.
    """
    with _short_name(path) as name:
        owner = os.stat(os.path.dirname(name)).st_uid
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise StateError(f"{path} is a symbolic link and no control socket: remove it")
        yield f"/proc/self/fd/{found}", owner
    finally:
        os.close(found)


def _now() -> str:
    return in_utc(datetime.datetime.now(datetime.UTC), "seconds")
