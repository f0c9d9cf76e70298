"""Commands to a running primary, through its control socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from pydbt.controller.control import CLIENTS_MAX, ClientGone
from pydbt.controller.primary.configuring import joining, new_epoch, secure_of
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.handing_over import DEFAULT_PATIENCE_S, HandingOver
from pydbt.controller.primary.handshake import hello_of, part_from, shake_hands
from pydbt.controller.primary.mark_commands import mark_event, mark_wait_event
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import VolumeReport
from pydbt.controller.primary.seen import SEEN_COMMANDS, SeenAnswers
from pydbt.controller.primary.transaction_commands import asked_transaction, ended_transactions
from pydbt.controller.primary.volume import Volume
from pydbt.controller.requests import Gone, Request, check_arguments
from pydbt.core.errors import BusyError, PydbtError, StateError, TimedOut, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.protocol.generations import lineage_of
from pydbt.network.address import check_plain_tcp, format_address, parse_address, split_address
from pydbt.store.secondary_record import SecondaryRecord

_ANSWER_S = 60
# Beyond the time in which everything has to reach the secondary: to end, and to hear of the new primary.
_SWITCHOVER_S = 120
# Waits last for as long as an outage does. The other places are for the commands that are needed then: status, resume, down.
WAITS_MAX = CLIENTS_MAX - 16
# A client that is gone is noticed this soon.
LOOK_S = 1.0


AtOnce = Callable[[dict[str, Any], ClientGone], dict[str, Any]]
"""Answers in the asker's thread, without the loop."""


class Commands:
    """The one table of answers. All but ``serve`` is called from the loop's thread alone.

    ``report`` makes the answer of most of them, ``seen`` that of those that only look; ``at_once``: of those that the loop has no
    part in. ``down``: the request that is to end it
    all; ``handing_over``: a change of places that is under way.
    """

    def __init__(
        self,
        volume: Volume,
        feed: Feed,
        report: Callable[[], VolumeReport],
        seen: SeenAnswers,
        at_once: Mapping[str, AtOnce],
    ) -> None:
        self._volume, self._feed, self._report, self._seen, self._at_once = volume, feed, report, seen, at_once
        self.down: Request | None = None
        self.handing_over: HandingOver | None = None
        self._waits = threading.BoundedSemaphore(WAITS_MAX)
        self._removing: set[int] = set()  # secondaries, until that is written down

    def serve(self, arguments: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        """One command, from a thread of the control socket; its answer. Raises PydbtError when it cannot be done."""
        check_arguments(arguments)
        request = Request(str(arguments["command"]), threading.Event(), arguments=arguments)
        if (answer := self._at_once.get(request.command)) is not None:
            return answer(arguments, gone)
        if request.command == "add":
            self._prove(arguments)
        if request.command == "switchover":
            return self._answer(request, _SWITCHOVER_S + (arguments.get("timeout") or DEFAULT_PATIENCE_S), gone)
        if request.command in SEEN_COMMANDS:
            return self._seen.answer(arguments, lambda: self._answer(request, _ANSWER_S, gone))
        if request.command not in ("wait", "mark"):
            return self._answer(request, _ANSWER_S, gone)
        if not self._waits.acquire(blocking=False):
            raise BusyError(
                f"{WAITS_MAX} commands wait for this volume already: try again when some of them have ended"
            )
        try:
            return self._serve_wait(request, gone)
        finally:
            self._waits.release()

    def _serve_wait(self, request: Request, gone: ClientGone) -> dict[str, Any]:
        """A wait, after what the kernel keeps in memory was written out, if that is asked for."""
        timeout_s = request.arguments.get("timeout")
        deadline = inf if timeout_s is None else time.monotonic() + timeout_s
        if request.arguments.get("sync"):
            request.told["left_out"] = self._write_out(timeout_s, deadline, gone)
        return self._answer(request, timeout_s, gone, deadline)

    def _write_out(self, timeout_s: float | None, deadline: float, gone: ClientGone) -> list[str]:
        """Sentences on what cannot be reached. DeviceError when something could not be written out, TimedOut."""
        asked = self._volume.writeout.ask()
        while not asked.done.wait(max(0.0, min(LOOK_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or gone():
                place = self._volume.writeout.place or "the data in memory"
                raise TimedOut(f"{place} was not written out within {timeout_s} s, so it is not known what is missing")
        if asked.error is not None:
            raise asked.error
        return asked.left_out

    def _answer(
        self, request: Request, timeout_s: float | None, gone: ClientGone, deadline: float | None = None
    ) -> dict[str, Any]:
        """Hand a request to the loop, and wait for its answer for as long as somebody waits for that."""
        self._volume.inbox.post(request)
        if deadline is None:
            deadline = inf if timeout_s is None else time.monotonic() + timeout_s
        while not request.done.wait(max(0.0, min(LOOK_S, deadline - time.monotonic()))):
            if time.monotonic() < deadline and not gone():
                continue
            what = f"the controller did not carry out {request.command}"
            if request.command == "mark" or "mark" in request.arguments:
                what = "no answer told that the secondary holds the mark"
            elif request.command == "wait":
                what = "not every write was durable on the secondary"
            request.fail(TimedOut(f"{what} within {timeout_s} s"))
            self._volume.inbox.post(Gone(request))
            break
        if request.error is not None:
            raise request.error
        return request.result or {}

    def carry_out(self, request: Request) -> None:
        """Begin it, and answer when it is done at once. One that was given up is not begun: whoever asked was told so."""
        if request.done.is_set():
            return
        try:
            result = self._do(request)
        except PydbtError as error:
            request.fail(error)
            return
        if result is not None:
            request.answer(result)

    def _do(self, request: Request) -> dict[str, Any] | None:
        arguments = request.arguments
        match request.command:
            case "status":
                pass
            case "map":
                return self._seen.look(self._meant(arguments))
            case "method":
                self._feed.catch_up()
                return self._seen.method(self._meant(arguments), self._report())
            case "wait" | "mark":
                self._wait(request)
                return None
            case "transactions":
                self._feed.catch_up()
                return ended_transactions(self._volume, arguments.get("after") or 0)
            case "pause":
                for peer in self._meant(arguments):
                    self._feed.take(ev.PauseAsked(), peer.number)
            case "resume":
                for peer in self._meant(arguments):
                    peer.refusal = None
                    self._feed.take(ev.ResumeAsked(), peer.number)
            case "verify":
                self.verify(arguments)
            case "add":
                self._add(request)
                return None
            case "remove":
                self._remove(request)
                return None
            case "down":
                self.down = request
                return None
            case "switchover":
                if self.handing_over is not None:
                    raise BusyError("this volume is changing places already")
                self.handing_over = HandingOver(self._volume, next(iter(self._volume.peers.values())), request)
                return None
            case other:
                raise PydbtError(f"a controller knows no command {other!r}")
        return self._status()

    def _status(self) -> dict[str, Any]:
        self._feed.catch_up()
        return self._report().to_json()

    def _meant(self, arguments: dict[str, Any]) -> list[Peer]:
        """The secondary that is named, or all of them. UsageError when there is none of that name."""
        peers = list(self._volume.peers.values())
        named = arguments.get("secondary")
        if not named:
            return peers
        meant = [peer for peer in peers if split_address(peer.address) == parse_address(named)]
        if not meant:
            known = ", ".join(peer.address for peer in peers)
            raise UsageError(f"this volume has no secondary {named}: it has {known}")
        return meant

    def verify(self, arguments: dict[str, Any]) -> None:
        """Begin or cancel a verification with each secondary that is meant, or with none of them."""
        meant = self._meant(arguments)
        for peer in meant:
            peer.verification.require(arguments)
        for peer in meant:
            event = peer.verification.command(arguments)
            if event is not None:
                self._feed.take(event, peer.number)
            if isinstance(event, ev.VerifyCancelled):
                peer.verification.cancelled()
                self._volume.keep()

    # --- waits --------------------------------------------------------------------------------------------
    def _wait(self, request: Request) -> None:
        named = request.arguments.get("secondary")
        numbers = tuple(peer.number for peer in self._meant(request.arguments)) if named else None
        if request.command == "mark" or request.arguments.get("mark") is not None:
            self._feed.catch_up()  # what was submitted by now is before the mark
            made = mark_event if request.command == "mark" else mark_wait_event
            self._feed.take(made(self._volume, request, numbers))
            return
        transaction = None
        if (name := request.arguments.get("transaction")) is not None:
            self._feed.catch_up()  # a commit that has completed by now counts
            transaction, told = asked_transaction(self._volume, name)
            request.told |= told
        asked = self._volume.waits.add(request, self._volume.capture.producer_position(), numbers, transaction)
        self._volume.events.append((None, asked))

    def forget_wait(self, request: Request) -> None:
        """Its client does not wait any more."""
        self._volume.events.extend((None, gone) for gone in self._volume.waits.forget(request))

    # --- secondaries --------------------------------------------------------------------------------------
    def _prove(self, arguments: dict[str, Any]) -> None:
        """A new secondary must be there and take this volume before anything is written down. In the asker's thread."""
        volume, options = self._volume, self._volume.options
        address = parse_address(arguments["secondary"])
        self._require_new(address)
        if any(brain.snapshot_based for brain in volume.brains):
            raise UsageError("where only addresses are captured, a volume has one secondary: no other one can be added")
        if options.identity is None:
            check_plain_tcp(address[0], options.insecure)
        state = volume.metadata.on_disk  # no name that a crash of now would forget
        hello = hello_of(state, volume.device.logical_block_bytes, 0, lineage_of([state.generations]))
        connection, welcome = shake_hands(*address, hello, secure_of(options, arguments.get("peer"), None))
        part_from(connection)
        for record in state.secondaries:
            if record.replica == welcome.replica:
                raise UsageError(
                    f"{format_address(*address)} is a secondary of this volume already, at {record.address}"
                )

    def _require_new(self, address: tuple[str, int]) -> None:
        if self._volume.record_of(address) is not None:
            raise UsageError(f"{format_address(*address)} is a secondary of this volume already")

    def _add(self, request: Request) -> None:
        """It is replicated to as soon as it is written down."""
        volume = self._volume
        address = parse_address(request.arguments["secondary"])
        self._require_new(address)

        def then(record: SecondaryRecord, error: str) -> None:
            try:
                if error:
                    raise StateError(error)
                self._join(record, request.arguments.get("peer"))
            except PydbtError as problem:
                request.fail(problem)
            else:
                request.answer(self._status())

        volume.metadata.add(format_address(*address), new_epoch(), then)

    def _join(self, record: SecondaryRecord, peer_name: str | None) -> None:
        volume = self._volume
        secure = secure_of(volume.options, peer_name, record.pin_name)
        state = volume.metadata.state
        discards = volume.brains[0].config.discards
        joined = joining(
            volume.options, state, record, secure, completed_first=volume.completed_first, discards=discards
        )
        volume.join(record.slot, joined)
        self._feed.take(ev.Tick(), record.slot)

    def _remove(self, request: Request) -> None:
        (peer,) = self._meant(request.arguments)
        if peer.number in self._removing:
            raise BusyError(f"{peer.address} is being removed already")
        if len(self._volume.peers) - len(self._removing) == 1:
            raise UsageError(
                f"{peer.address} is the only secondary of this volume: 'controller down' ends its replication"
            )
        error = PydbtError(f"{peer.address} was removed before every write was durable there")
        address = split_address(peer.address)

        def for_this_one_alone(waiting: Request) -> bool:
            named = waiting.arguments.get("secondary")
            return parse_address(named) == address if named else False

        for waiting in self._volume.waits.fail(error, for_this_one_alone):
            self.forget_wait(waiting)
        self._feed.process()
        self._removing.add(peer.number)

        def then(problem: str) -> None:
            self._removing.discard(peer.number)
            if problem:
                request.fail(StateError(problem))
            else:
                request.answer(self._status())

        self._feed.part(peer, then)
