"""``controller secondary`` on the state directory of a replica that was promoted: it tells its role, and takes no write.

The old primary connects to the address of its replica when it comes back, and asks before it mounts. Nothing of the target is
opened here, which is a mounted volume by then. The state directory is only read, but for a socket for commands.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pydbt.controller.control import ControlServer
from pydbt.controller.former_secondary import former_socket
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.registry import is_claimed, is_secondary_running
from pydbt.controller.secondary.asked_to_end import end_by_signals
from pydbt.controller.secondary.connections import Connections
from pydbt.core.errors import BusyError, MachineError, StateError, UsageError
from pydbt.core.protocol.frames import Refuse
from pydbt.core.secondary import events as e
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.role_answer import answer_of_promoted
from pydbt.core.units import MIB
from pydbt.network.address import check_plain_tcp, format_address
from pydbt.network.arena import Arena
from pydbt.network.listen import Listener, listen
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.privileges import PRIMARY_KEEPS, SECONDARY_KEEPS, keep_only
from pydbt.store.lock import is_in_use
from pydbt.store.peer_pin import Unpinned
from pydbt.store.replica_state import load_record

_ARENA_BYTES = 1 * MIB
# A demotion is noticed this soon, and so is that the address is free again.
_LOOK_S = 1.0
_SLICE_S = 0.1
_PATIENCE_S = 30.0
"""A promotion begins this soon after its secondary has made way, also on a slow machine; else it was given up."""

_log = logging.getLogger("pydbt")


def answering(listener: Listener, record: Callable[[], ReplicaRecord | None], secure: Secure | None) -> Connections:
    """Started: whoever connects gets one frame, by the record of that moment."""

    def answer(event: e.Event) -> None:
        """In the thread of the connection."""
        if not isinstance(event, e.Connected):
            return
        try:
            found = record()
        except StateError as error:
            _log.error("%s", error)
            found = None
        if found is None or not found.promoted:
            connections.close(event.connection)  # a moment before the end
            return
        frame = answer_of_promoted(event.hello, found, socket.gethostname(), proven=event.proven)
        connections.send(event.connection, frame)
        connections.close(event.connection, frame.message if isinstance(frame, Refuse) else "")

    connections = Connections(listener, Arena(_ARENA_BYTES), answer, secure=secure)
    connections.start()
    return connections


def after_a_promotion(options: SecondaryOptions) -> int | SecondaryOptions:
    """Wait after a secondary has made way for ``controller promote``, until that is over: the options to go on with.

    0 when it was stopped. The state says whether this side was promoted, or is still a replica. Raises PydbtError.
    """
    options = replace(options, listener=None, accept_target=False)
    stop = _stopped_by_signals()
    free_since = time.monotonic()
    while not stop.asked_within(_LOOK_S):
        options.manager.sign_of_life()
        record, now = load_record(options.state_dir), time.monotonic()
        if is_in_use(options.state_dir) or is_secondary_running(options.target):
            free_since = now
        elif record is not None and record.promoted:
            return options
        elif now - free_since > _PATIENCE_S:
            _log.warning("%s was not promoted after all: it goes on as a replica", options.target)
            return options
    options.manager.stopping()
    return 0


def serve_promoted(options: SecondaryOptions) -> int | SecondaryOptions:
    """Answer until stopped, then 0; the options when this side was demoted, and is a replica again. Raises PydbtError."""
    secure = None
    if options.identity is None:
        check_plain_tcp(options.listen_host, options.insecure)
    else:
        secure = Secure(load_identity(options.identity), Unpinned(options.peer))
    stop = _stopped_by_signals()
    if secure is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, lambda *_: _reload(secure))
    listener = _listener(options, stop)
    if listener is None:
        return 0
    is_device = options.target.is_block_device()  # it may be a replica again, and then change places
    keep_only(PRIMARY_KEEPS if is_device else SECONDARY_KEEPS, runs_programs=is_device)
    connections = answering(listener, lambda: load_record(options.state_dir), secure)
    where = format_address(*options.listen)
    try:
        with _commands(options, stop, where):
            return _until_demoted(options, stop, where)
    finally:
        connections.stop()


def _until_demoted(options: SecondaryOptions, stop: _Stop, where: str) -> int | SecondaryOptions:
    _log.warning(
        "%s was promoted and is a volume of its own: at %s its old primary is told so, and nothing may overwrite it (to "
        "make it a replica again, 'controller demote' it)", options.target, where,
    )  # fmt: skip
    options.manager.ready(f"{options.target} was promoted: its old primary is told so at {where}")
    while not stop.asked_within(_LOOK_S):
        options.manager.sign_of_life()
        record = load_record(options.state_dir)
        if record is None or not record.promoted:
            _log.info("%s is a replica again", options.target)
            return replace(options, accept_target=False)
    options.manager.stopping()
    return 0


@contextlib.contextmanager
def _commands(options: SecondaryOptions, stop: _Stop, where: str) -> Iterator[None]:
    """Meanwhile commands are answered. ``where``: the address at which the old primary is told; empty while another has it.

    Without a place for the socket the old primary is told all the same. BusyError when another process does this already.
    """

    def answer(request: dict[str, Any], _: object) -> dict[str, Any]:
        match request.get("command"):
            case "status":
                return {"role": "promoted", "target": str(options.target), "listen": where, "process": os.getpid()}
            case "down" | "stop":
                stop.ask()
                return {}
            case other:
                raise UsageError(
                    f"{options.target} was promoted, and its former secondary does not know the command {other!r}: use "
                    "'controller run', which replicates it"
                )

    server = ControlServer(former_socket(options.state_dir), answer)
    try:
        server.start()
    except (StateError, MachineError) as error:
        _log.warning("'controller down' does not reach this process: %s", error)
    try:
        yield
    finally:
        server.stop()


class _Stop:
    """Asked for by a signal handler, which may take no lock: it interrupts the thread that waits here."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        self._asked = True

    def asked_within(self, seconds: float) -> bool:
        """Wait for this long, unless it is asked for; whether it is."""
        end = time.monotonic() + seconds
        while not self._asked and time.monotonic() < end:
            time.sleep(_SLICE_S)
        return self._asked


def _stopped_by_signals() -> _Stop:
    stop = _Stop()
    end_by_signals(stop.ask)
    return stop


def _reload(secure: Secure) -> None:
    try:
        secure.reload()
    except UsageError as error:
        _log.error("%s; the identity that was read before stays in use", error)


def _listener(options: SecondaryOptions, stop: _Stop) -> Listener | None:
    """Where the replica listened. None when stopped while a run of this volume has the address: it gives the same answers."""
    listener = _free_listener(options)
    if listener is not None:
        return listener
    _log.info("'controller run' of this volume answers its old primary itself")
    options.manager.ready("'controller run' of this volume answers its old primary itself")
    with _commands(options, stop, ""):
        while not stop.asked_within(_LOOK_S):
            options.manager.sign_of_life()
            if (listener := _free_listener(options)) is not None:
                return listener
    return None


def _free_listener(options: SecondaryOptions) -> Listener | None:
    """None while a run of this volume has the address. BusyError when something else has it."""
    try:
        return listen(*options.listen)
    except BusyError:
        if not is_claimed(options.state_dir):
            raise
        return None
