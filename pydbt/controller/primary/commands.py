"""What people ask of a running primary, through its control socket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pydbt.controller.primary.configuring import joining, new_epoch, secure_of
from pydbt.controller.primary.handshake import hello_of, shake_hands
from pydbt.controller.requests import Gone, Request, check_arguments
from pydbt.core.errors import PydbtError, TimedOut, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.protocol.generations import lineage_of
from pydbt.network.address import check_plain_tcp, format_address, parse_address, split_address

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop
    from pydbt.controller.primary.peer import Peer

_ANSWER_S = 60.0


class Commands:
    """Part of the primary's loop; all but ``serve`` is called from its thread alone. ``down``: who asked to end it all."""

    def __init__(self, loop: PrimaryLoop) -> None:
        self._loop = loop
        self._waits: dict[int, Request] = {}
        self._next_token = 1
        self.down: Request | None = None

    def serve(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """One command, from a thread of the control socket; its answer. PydbtError says why not."""
        check_arguments(arguments)
        request = Request(str(arguments["command"]), threading.Event(), arguments=arguments)
        if request.command == "add":
            self._prove(arguments)
        self._loop.post(request)
        waits = request.command == "wait"
        timeout = arguments.get("timeout") if waits else _ANSWER_S
        if not request.done.wait(timeout):
            self._loop.post(Gone(request))
            if not waits:
                raise TimedOut(f"the controller did not come to {request.command} within {timeout:g} s")
            raise TimedOut(f"not every write was durable on the secondary within {timeout} s")
        if request.error is not None:
            raise request.error
        return request.result or {}

    def carry_out(self, request: Request) -> None:
        """Begin it, and answer when it is done at once."""
        try:
            result = self._do(request)
        except PydbtError as error:
            request.fail(error)
            return
        if result is not None:
            request.answer(result)

    def _do(self, request: Request) -> dict[str, Any] | None:
        loop, arguments = self._loop, request.arguments
        match request.command:
            case "status":
                pass
            case "wait":
                self._wait(request)
                return None
            case "pause":
                for peer in self._meant(arguments):
                    loop.take(ev.PauseAsked(), peer.number)
            case "resume":
                for peer in self._meant(arguments):
                    peer.refusal = None
                    loop.take(ev.ResumeAsked(), peer.number)
            case "verify":
                self._verify(arguments)
            case "add":
                self._add(arguments)
            case "remove":
                self._remove(arguments)
            case "down":
                self.down, loop.stopping = request, True
                return None
            case other:
                raise PydbtError(f"a controller knows no command {other!r}")
        return loop.status()

    def _meant(self, arguments: dict[str, Any]) -> list[Peer]:
        """The secondary that is named, or all of them. UsageError when there is none of that name."""
        peers = list(self._loop.peers.values())
        named = arguments.get("secondary")
        if not named:
            return peers
        meant = [peer for peer in peers if split_address(peer.address) == parse_address(named)]
        if not meant:
            known = ", ".join(peer.address for peer in peers)
            raise UsageError(f"this volume has no secondary {named}: it has {known}")
        return meant

    def _verify(self, arguments: dict[str, Any]) -> None:
        meant = self._meant(arguments)
        for peer in meant:
            peer.verification.require(arguments)
        for peer in meant:
            peer.verification.command(arguments)

    # --- waits --------------------------------------------------------------------------------------------
    def _wait(self, request: Request) -> None:
        named = request.arguments.get("secondary")
        numbers = tuple(peer.number for peer in self._meant(request.arguments)) if named else None
        token, self._next_token = self._next_token, self._next_token + 1
        self._waits[token] = request
        first = bool(request.arguments.get("any"))
        self._loop.events.append((None, ev.WaitAsked(token, self._loop.capture.producer_position(), numbers, first)))

    def answer_wait(self, token: int) -> None:
        request = self._waits.pop(token, None)
        if request is not None:
            request.answer({"sequence": min(brain.acknowledged for brain in self._loop.brains)})

    def forget_wait(self, request: Request) -> None:
        """Nobody waits for its answer any more."""
        for token in [token for token, waiting in self._waits.items() if waiting is request]:
            del self._waits[token]
            self._loop.events.append((None, ev.WaitGone(token)))

    def fail_waits(self, error: PydbtError) -> None:
        for request in self._waits.values():
            request.fail(error)

    # --- secondaries --------------------------------------------------------------------------------------
    def _prove(self, arguments: dict[str, Any]) -> None:
        """A new secondary must be there and take this volume before anything is written down. In the asker's thread."""
        loop, options = self._loop, self._loop.options
        address = parse_address(arguments["secondary"])
        self._require_new(address)
        if any(brain.epochs.on for brain in loop.brains):
            raise UsageError("where only addresses are captured, a volume has one secondary: no other one can be added")
        if options.identity is None:
            check_plain_tcp(address[0], options.insecure)
        volume = loop.kept.volume
        hello = hello_of(volume, loop.device.logical_block_bytes, 0, lineage_of([volume.generations]))
        connection, welcome = shake_hands(*address, hello, secure_of(options, arguments.get("peer"), None))
        connection.close()
        for record in volume.secondaries:
            if record.replica == welcome.replica:
                raise UsageError(
                    f"{format_address(*address)} is a secondary of this volume already, at {record.address}"
                )

    def _require_new(self, address: tuple[str, int]) -> None:
        if any(split_address(record.address) == address for record in self._loop.kept.volume.secondaries):
            raise UsageError(f"{format_address(*address)} is a secondary of this volume already")

    def _add(self, arguments: dict[str, Any]) -> None:
        loop = self._loop
        address = parse_address(arguments["secondary"])
        self._require_new(address)
        record = loop.kept.add(format_address(*address), new_epoch())
        secure = secure_of(loop.options, arguments.get("peer"), record.pin_name)
        loop.join(record.slot, joining(loop.options, loop.kept.volume, record, secure, completed_first=loop.intent.on))
        loop.take(ev.Tick(), record.slot)

    def _remove(self, arguments: dict[str, Any]) -> None:
        loop = self._loop
        (peer,) = self._meant(arguments)
        if len(loop.peers) == 1:
            raise UsageError(
                f"{peer.address} is the only secondary of this volume: 'controller down' ends its replication"
            )
        for request in list(self._waits.values()):
            named = request.arguments.get("secondary")
            if named and parse_address(named) == split_address(peer.address):
                request.fail(PydbtError(f"{peer.address} was removed before every write was durable there"))
                self.forget_wait(request)
        loop.process()
        loop.part(peer)
