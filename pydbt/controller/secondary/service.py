"""``controller secondary``: the loop in which the secondary's brain meets the network, the journal and the target.

Crash-only: a failure under the brain (target, journal, state file) is reported to the primary, and the brain is built
again from the state on disk, the same way as after a kill.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydbt.controller.at_work import doing
from pydbt.controller.clocks import now_after, woke_at
from pydbt.controller.control import (
    SAVE_STATUS_INTERVAL_S,
    ClientGone,
    ControlServer,
    write_saved_status,
)
from pydbt.controller.event_log import events_of_secondary
from pydbt.controller.expiry import identity_report, read_again, tell_expiry
from pydbt.controller.journal_room import warn_of_journal_room
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.public_status import public_server
from pydbt.controller.secondary.asked_to_end import end_by_signals
from pydbt.controller.secondary.beginning import make_image, require_place
from pydbt.controller.secondary.connections import Connections
from pydbt.controller.secondary.engine import Engine, PersistFailed, watch_of
from pydbt.controller.secondary.other_role import as_primary, keep_listen
from pydbt.controller.secondary.report import JournalReport, SecondaryServiceReport, replay_words
from pydbt.controller.state_dir import make_state_dir, remove_state_dir
from pydbt.core.errors import DeviceError, StateError, UsageError
from pydbt.core.protocol.frames import SUPERSEDED, Refuse, Takeover
from pydbt.core.secondary import events as e
from pydbt.core.secondary.handshake import restart_refusal, trouble_refusal
from pydbt.core.secondary.promotion import Position, loss, require_whole, superseded_words, why_not_promote
from pydbt.core.secondary.replica import ReplicaState, own_part
from pydbt.core.secondary.status import ReplicaStatus
from pydbt.core.seen.event_names import PROMOTED
from pydbt.core.units import MIB
from pydbt.device.checks import check_target, had_before
from pydbt.device.target import Target, reopened
from pydbt.network.address import check_plain_tcp, format_address, parse_address, with_scope
from pydbt.network.arena import Arena
from pydbt.network.listen import listen, name_of_listener
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.atomic import remove_unfinished
from pydbt.posix.privileges import PRIMARY_KEEPS, SECONDARY_KEEPS, keep_only
from pydbt.store.lock import StateLock
from pydbt.store.peer_pin import PeerPin
from pydbt.store.replica_state import REPLICA_FILE_NAME
from pydbt.store.target_problem import load_target_problem, save_target_problem

ARENA_BYTES = 64 * MIB
REBUILD_S = 1.0
LONGEST_REBUILD_S = 16.0
"""The first and the longest rest before a target or a journal that failed is tried again: a full disk has room within seconds, or
somebody has to come."""
ENGINE_ANSWER_S = 2.0
FINISH_S = 20.0
"""A clean stop waits this long until the journal is on the target; the rest is replayed at the next start."""
LONGEST_WAIT_S = 1.25  # longer than from heartbeat to heartbeat, so that a replica at rest does not wake for this alone
"""A signal that comes just before a wait, or to another thread, does not end it: it is heard when the wait is over."""
SWITCH_S = 0.001
"""Threads that wait for the interpreter get it five times sooner than by default."""

_log = logging.getLogger(__name__)


class _Reload:
    """Put into the inbox by SIGHUP: the identity and the revoked keys are to be read again."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """Put into the inbox by a signal, ``down`` or ``promote``. ``farewell``: the reason that the primary is told."""

    farewell: Refuse | None = None


Item = tuple[Engine | None, e.Event | BaseException | _Stop | _Reload]


class SecondaryService:
    """One replica of one volume, served until stopped."""

    def __init__(self, options: SecondaryOptions) -> None:
        """Open target and state directory. Raises UsageError, StateError or another PydbtError before anything is changed."""
        self._options = options
        self._seen = events_of_secondary(options)
        self._told_bytes = 0  # the size of the target, when it was told last
        self._inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._connections: Connections | None = None
        self._finish_at: float | None = None  # once a stop was asked for: when the loop ends at the latest
        self._listening = ""
        self._stop_asked = self._has_let_go = False
        self._makes_way = False  # for a promotion, and this process goes on afterwards
        self._problem = ""  # while there is no engine that goes on: why
        self._watch = watch_of(options.state_dir)
        self._save_due = 0.0
        self._secure: Secure | None = None
        if options.identity is not None:
            pin = PeerPin(options.state_dir, options.peer, any_key=options.new_peer_key)
            self._secure = Secure(load_identity(options.identity), pin)
            tell_expiry(self._secure)
        with had_before(options.state_dir / REPLICA_FILE_NAME):
            check_target(str(options.target), state_dir=str(options.state_dir), create_bytes=options.create_bytes)
        require_place(options)
        self._fresh, state_dir = False, options.state_dir
        made = make_state_dir(state_dir)
        self._lock = StateLock(state_dir)
        remove_unfinished(state_dir)
        try:
            self._fresh = make_image(options)
            self._target = Target(str(options.target))
            self._trouble = load_target_problem(state_dir)
            if self._trouble:
                self._target.be_careful()
            self._engine = Engine(
                options, self._target, self._fresh, self._report, watch=self._watch, trouble=self._trouble
            )
            self._options = replace(options, accept_target=False)  # it was meant for this one
        except Exception:
            self._lock.close()
            remove_state_dir(made)
            if self._fresh and not (state_dir / REPLICA_FILE_NAME).exists():
                options.target.unlink(missing_ok=True)
            raise

    def run(self) -> int | PrimaryOptions | SecondaryOptions:
        """Serve until stopped; the exit code. Options of a primary: this side has taken its primary's place, and this process is
        to run it; of a secondary: it has made way for a promotion, after which this process answers the old primary."""
        if self._options.replay_only:
            return self._replay()
        listener = self._options.listener or listen(*self._options.listen)
        public = public_server(self._options.state_dir, self._command)  # before it gives up what a group's socket takes
        if self._target.is_block_device:
            keep_only(PRIMARY_KEEPS, runs_programs=True)  # it may change places with its primary
        else:
            keep_only(SECONDARY_KEEPS, runs_programs=False)
        # Threads, also those of the sockets, begin only now: each has the capabilities of its start.
        self._listening = name_of_listener(listener)
        keep_listen(self._options)
        arena = Arena(ARENA_BYTES)
        inbox = self._inbox
        self._connections = Connections(
            listener, arena, lambda event: inbox.put((None, event)), secure=self._secure, unheard=inbox.qsize
        )
        try:
            options: PrimaryOptions | None = None
            with ControlServer(self._options.state_dir, self._command), public or contextlib.nullcontext(), self._seen:
                self._engine.start(self._connections)
                self._connections.start()
                warn_of_journal_room(self._options.state_dir, self._options.journal_limit_bytes)
                _log.info("listening on %s for the primary of %s", self._listening, self._options.target)
                self._options.manager.ready(f"listening on {self._listening}; 'controller status' tells more")
                while options is None:
                    self._loop()
                    if self._engine.takeover is None or self._stop_asked:
                        break
                    options = self._take_over(self._engine.takeover)
        finally:
            self._connections.stop()
            self.close()
        return options or (self._options if self._makes_way else 0)

    def stop(self) -> None:
        """Ask the loop to end; may be called from any thread and from a signal handler."""
        self._stop_asked, self._makes_way = True, False
        self._inbox.put((None, _Stop()))

    def reload(self) -> None:
        """Ask the loop to read the identity and the revoked keys again; may be called from a signal handler."""
        self._inbox.put((None, _Reload()))

    def _reload(self) -> None:
        if self._secure is not None and read_again(self._secure) and self._connections is not None:
            self._connections.end_revoked()

    def close(self) -> None:
        """Close everything."""
        self._let_go()
        self._lock.close()

    def _let_go(self) -> None:
        """End the work on the target, which others may use from here on. Idempotent."""
        if self._has_let_go:
            return
        self._has_let_go = True
        self._engine.stop()
        with contextlib.suppress(StateError):  # for people; whatever was promised before is on disk already
            write_saved_status(self._options.state_dir, self.report().to_json())
        self._target.close()

    def report(self) -> SecondaryServiceReport:
        """The report of ``controller status``."""
        connections, now = self._connections, now_after(self._watch.heard_at)
        replica, problem, keeper = self._engine.brain.status(now), self._problem, self._engine.brain.keeper
        return SecondaryServiceReport(
            role="secondary", target=str(self._options.target), target_bytes=self._target_bytes(), listen=self._listening,
            problem=problem, journal=JournalReport(self._engine.journal.used_bytes, self._options.journal_limit_bytes),
            received_bytes=connections.received_bytes if connections is not None else 0,
            identity=identity_report(self._secure),
            replica=replica.without_engine() if problem else replica,
            primary=self._watch.report(now, connected=replica.connected),
            transactions=self._watch.transactions.report(now, consistent=replica.is_consistent),
            marks=keeper.marks.report(keeper.epoch) if replica.is_consistent else (),
            handover=None if replica.connected else self._watch.handover.kept,
            divergence=None if replica.connected else own_part(self._engine.brain.record),
        )  # fmt: skip

    def _target_bytes(self) -> int:
        with contextlib.suppress(DeviceError):  # the applier finds it too, and the report tells what it found
            self._told_bytes = self._target.size_bytes
        return self._told_bytes

    # --- the loop -----------------------------------------------------------------------------------------
    def _loop(self) -> None:
        while not self._finished():
            self._turn()

    def _turn(self) -> None:
        """Wait for one item, and carry out everything that follows from it. Raises the exception that a worker died of."""
        self._options.manager.sign_of_life()
        engine, item = self._take()
        self._watch.note_wake(woke_at())
        match item:
            case BaseException():
                raise item
            case _Stop(farewell):
                self._begin_stop(farewell)
            case _Reload():
                self._reload()
            case _ if engine is not None and engine is not self._engine:
                pass  # of a worker of an earlier life
            case e.Connected() | e.FrameReceived() if self._finish_at is not None:
                pass  # nothing new is begun
            case _:
                failure = self._handle(item)
                del item  # the memory of its frame must not wait for another engine
                if failure is not None:
                    self._rebuild(*failure)
        if self._engine.takeover is not None and self._finish_at is None:
            self._finish_at = time.monotonic() + FINISH_S
            _log.info("the primary has become a replica: this side takes its place")
        self._keep_trouble()
        self._keep_status()
        self._seen.look(self.report, time.monotonic())

    def _handle(self, event: e.Event) -> tuple[str, int | None] | None:
        """The reason for another engine, and how far it may trust the journal; None when the engine goes on."""
        try:
            self._engine.handle(event, self._connections)
        except PersistFailed as error:
            self._tell("disk-full", f"the secondary cannot write its state: {error}")
            return str(error), None
        restart = self._engine.restart
        return None if restart is None else (restart.reason, restart.trusted)

    def _take(self) -> Item:
        due = [at for at in (self._engine.brain.deadline(), self._finish_at) if at is not None]
        timeout = min([LONGEST_WAIT_S, *(max(at - time.monotonic(), 0) for at in due)])
        try:
            return self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None, e.Tick()

    def _keep_status(self) -> None:
        """What is known of the primary must outlive this process: a promotion asks for it."""
        now = time.monotonic()
        if now >= self._save_due and self._engine.brain.session is not None:
            self._save_due = now + SAVE_STATUS_INTERVAL_S
            with contextlib.suppress(StateError):  # for people; the disk may be full
                write_saved_status(self._options.state_dir, self.report().to_json())

    def _keep_trouble(self) -> None:
        """What keeps the target from being written must outlive this process, and end with it."""
        trouble = self._engine.brain.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            with contextlib.suppress(StateError):  # the next run finds it anew when it writes there
                save_target_problem(self._options.state_dir, trouble)

    def _begin_stop(self, farewell: Refuse | None) -> None:
        if self._finish_at is not None:
            self._finish_at = time.monotonic()  # asked twice: at once
            return
        self._finish_at = time.monotonic() + FINISH_S
        _log.info("stopping")
        if not self._makes_way:
            self._options.manager.stopping()
        if self._connections is not None:
            if farewell is not None:
                self._tell(farewell.code, farewell.message)
            self._connections.close_all()
            peer = self._engine.brain.peer
            if peer is not None:
                self._engine.handle(e.Disconnected(peer, "stopping"), self._connections)

    def _take_over(self, takeover: e.TakeOver) -> PrimaryOptions | None:
        """Be a volume of its own, durably, and tell the old primary; None when this stays a replica."""
        connections, brain, status = self._connections, self._engine.brain, self._engine.brain.status(time.monotonic())
        assert connections is not None, "a HANDOVER came over the network"
        replica, refusal = ("", 0), ""
        try:  # the address first: an end after the promotion would leave the old primary without an answer
            replica = parse_address(with_scope(takeover.listen, connections.scope_of(takeover.connection)))
            if brain.drained and status.replica_state is not ReplicaState.INCONSISTENT:
                self._engine.promote(datetime.now(UTC).isoformat(timespec="seconds"))
            else:
                refusal = "not everything was on its target in time"
        except (StateError, UsageError, ValueError) as error:
            refusal = str(error)
        if refusal:
            self._engine.stay_replica(takeover, refusal)
        else:
            self._let_go()  # who hears of it may mount the target at once
        connections.send(takeover.connection, Takeover(final=True, refusal=refusal))
        connections.close(takeover.connection)
        if refusal:
            _log.error(
                "this side stays a replica, and there is no primary: %s; 'controller promote' one of them", refusal
            )
            self._finish_at = None
            return None
        until = time.monotonic() + ENGINE_ANSWER_S
        while connections.last_received(takeover.connection) is not None and time.monotonic() < until:
            time.sleep(0.01)  # the answer must arrive before everything is closed
        place = format_address(*replica)
        _log.info("%s is a volume of its own now, and its replica is at %s", self._options.target, place)
        self._seen.say(PROMOTED, f"it took its primary's place, and its replica is at {place}")
        return as_primary(self._options, replica)

    def _finished(self) -> bool:
        ends = self._finish_at
        return ends is not None and (self._engine.brain.drained or time.monotonic() >= ends)

    def _rebuild(self, reason: str, trusted: int | None) -> None:
        """Replace the engine by one built from disk; retried until it succeeds. Raises StateError when stopped."""
        self._problem = reason
        if self._connections is not None:
            self._connections.close_all()
        self._engine.stop()
        self._keep_trouble()
        if self._trouble:
            self._target.be_careful()
        wait = REBUILD_S
        while True:
            _log.warning("starting again in %g s: %s", wait, self._problem)
            self._pause(wait, turn_away=wait > REBUILD_S or bool(self._trouble))
            if self._stop_asked:
                raise StateError(self._problem)
            wait = min(wait * 2, LONGEST_REBUILD_S)
            try:
                self._target = reopened(self._target)
                self._engine = Engine(
                    self._options, self._target, self._fresh, self._report, trusted, self._watch, self._trouble
                )
                self._engine.start(self._connections)
                self._problem = ""
                return
            except (StateError, DeviceError) as error:
                self._problem = str(error)
            except PersistFailed as error:
                self._engine.stop()
                self._problem = str(error)

    def _pause(self, seconds: float, *, turn_away: bool) -> None:
        """Wait, unless asked to stop. In slices and without a lock, because a signal handler asks."""
        end = time.monotonic() + seconds
        while not self._stop_asked and time.monotonic() < end:
            self._options.manager.sign_of_life()
            self._seen.look(self.report, time.monotonic())
            if turn_away:
                self._turn_primaries_away()
            time.sleep(0.1)

    def _turn_primaries_away(self) -> None:
        """While there is no engine: who connects is told why, and is not left without an answer."""
        kept: list[Item] = []
        while not self._inbox.empty():
            engine, item = self._inbox.get_nowait()
            if not isinstance(item, e.Connected) or self._connections is None:
                kept.append((engine, item))
                continue
            refuse = trouble_refusal(self._trouble) if self._trouble else restart_refusal(self._problem)
            self._connections.send(item.connection, self._engine.answer_in_trouble(item, refuse))
            self._connections.close(item.connection, refuse.message)
        for one in kept:
            self._inbox.put(one)

    def _tell(self, code: str, message: str) -> None:
        if (peer := self._engine.brain.peer) is not None and self._connections is not None:
            self._connections.send(peer, Refuse(code, message))

    def _replay(self) -> int:
        self._engine.start(None)
        with contextlib.closing(self), doing(lambda: replay_words(self.report())):
            while not self._engine.brain.drained:
                _, item = self._take()
                match item:
                    case BaseException():
                        raise item
                    case e.TargetFailed(error):
                        raise StateError(f"the journal cannot be replayed: {error}")
                    case _Stop():
                        break
                    case _Reload():
                        continue
                try:
                    self._engine.handle(item, None)
                except PersistFailed as failure:
                    raise StateError(str(failure)) from None
            status = self._engine.brain.status(time.monotonic())
            if self._options.promote:
                self._promote(status)
                return 0
            print(f"{status.replica_state} at {status.position}")
        return 0

    def _promote(self, status: ReplicaStatus) -> None:
        """Everything of the last consistent image is on the target: let go of it for good."""
        if not self._engine.brain.drained:
            raise StateError("interrupted before the journal was on the target: promote it again")
        require_whole(self._options.target, status.target_problem)
        if found := why_not_promote(str(self._options.target), status.replica_state, "", lives=False):
            raise UsageError(found.why)
        image = Position(status.epoch, status.sequence)
        self._engine.promote(loss(self._watch.report(time.monotonic()), image).as_of)
        if status.staged_bytes:
            print(
                f"rolled back to {status.position}: a resynchronization was under way, and the {status.staged_bytes} bytes "
                "it had brought are dropped"
            )
        else:
            print(f"finished at {status.position}: everything the secondary had acknowledged is there")
        print(f"{self._options.target} is a volume of its own now, and no primary may overwrite it")

    def _report(self, engine: Engine, event: e.Event | BaseException) -> None:
        self._inbox.put((engine, event))

    def _command(self, request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        match request.get("command"):
            case "status":
                return self.report().to_json()
            case "events" | "history":
                return self._seen.answer(request, gone)
            case "down" | "stop":
                self.stop()
                return {}
            case "promote":
                return self._let_promote(force=request.get("force") is True)
            case other:
                raise UsageError(f"a secondary does not know the command {other!r}: ask its primary")

    def _let_promote(self, *, force: bool) -> dict[str, Any]:
        """Stop for a promotion, unless the primary lives; the status of the last moment. From a thread of the control socket."""
        report, now = self.report(), time.monotonic()
        require_whole(self._options.target, report.replica.target_problem)
        peer, connections = self._engine.brain.peer, self._connections
        received_at = connections.last_received(peer) if peer is not None and connections is not None else None
        self._watch.note_wake(woke_at())
        lives, has_slept = self._watch.lives(now, received_at), self._watch.has_slept_since(received_at)
        found = why_not_promote(
            str(self._options.target), self._engine.brain.replica_state, report.primary.host, lives=lives, has_slept=has_slept,
            gate_asked=self._watch.gate_asked,
        )  # fmt: skip
        if found is not None:
            found.heed(force=force)
            _log.warning("promoted although %s", found.why)
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        self._seen.say(PROMOTED, "promoted by the operator, to be a volume of its own")
        self._stop_asked, self._makes_way = True, not self._options.until_promoted
        self._inbox.put((None, _Stop(Refuse(SUPERSEDED, superseded_words(socket.gethostname(), moment)))))
        return report.to_json() | {"goes_on": self._makes_way}


def run_secondary(options: SecondaryOptions) -> int | PrimaryOptions | SecondaryOptions:
    """Serve a replica in the foreground until SIGTERM or SIGINT; the exit code. Raises PydbtError. Options: as of ``run``."""
    if not options.replay_only and options.identity is None:
        check_plain_tcp(options.listen_host, options.insecure)
    sys.setswitchinterval(SWITCH_S)
    service = SecondaryService(options)
    end_by_signals(service.stop, first=True)
    if options.identity is not None and threading.current_thread() is threading.main_thread():
        # On a terminal too (tmux, screen); without an identity it ends nothing.
        signal.signal(signal.SIGHUP, lambda *_: service.reload())
    return service.run()
