"""``controller switchover``: the running primary becomes the secondary of its secondary. The steps: ``core/primary/handover``."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import replace
from typing import Any

from pydbt.controller.journal_room import require_journal_room
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary.handshake import shake_hands
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.volume import Volume
from pydbt.controller.requests import Request
from pydbt.controller.roles import demote
from pydbt.core.errors import BusyError, PeerError, PydbtError, StateError, UsageError
from pydbt.core.primary.handover import HandoverSteps, Step
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import HANDOVER, WITHDRAWAL, Handover, Hello, Takeover
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.device.checks import check_target, require_unused
from pydbt.network.address import check_plain_tcp, format_address, parse_address, unix_path
from pydbt.network.listen import listen
from pydbt.network.local import remove_socket
from pydbt.network.tls import load_identity
from pydbt.store.listen_file import save_listen
from pydbt.store.open_handover_file import as_of_now, load_open_handover, save_open_handover
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.successor import save_successor

DEFAULT_PATIENCE_S = 60.0
# The secondary brings its journal to its disk, and becomes a volume of its own, durably.
TAKEOVER_S = 60.0

_log = logging.getLogger("pydbt")


class HandingOver:
    """One planned change of places. Called from the loop's thread alone. The device is held until this side is a replica."""

    def __init__(self, volume: Volume, peer: Peer, request: Request) -> None:
        """Hold the device and the place to listen, and ask the secondary. PydbtError, and nothing is changed.

        Whatever the start of a secondary asks for is asked now: afterwards this side is a replica, and nobody may serve it.
        """
        self._volume, self._peer, self.request = volume, peer, request
        self._hold: int | None = None
        _require_ready(volume, peer)
        self._secondary = _as_secondary(
            volume.options, *_listen_address(volume.options, peer, request.arguments.get("listen"))
        )
        patience_s = request.arguments.get("timeout")
        require_unused(volume.device, volume.device.path)
        require_start(self._secondary)
        if volume.former_address is not None:  # its old primary has become its secondary
            volume.former_address.make_way()
        try:
            self._secondary = listening(self._secondary)
        except PydbtError:
            self._release()
            raise
        try:
            self._hold = os.open(volume.device.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            self._release()
            raise BusyError(f"{volume.device.path} is in use: {error.strerror}; unmount it first") from None
        self.steps = HandoverSteps(time.monotonic(), DEFAULT_PATIENCE_S if patience_s is None else patience_s)
        peer.connection.send(Handover(final=False, listen=format_address(*self._secondary.listen)))
        _log.info("changing places with %s: it is asked whether it can take over", peer.address)

    def heard(self, peer: Peer, answer: Takeover) -> None:
        """The secondary's answer to the question."""
        if peer is self._peer and not answer.final:
            self.steps.answered(answer.refusal and f"{peer.address} cannot take over: {answer.refusal}")

    def advance(self, now: float) -> None:
        """Look at the clock and at the connection."""
        self.steps.waited(now)
        if not self._peer.brain.link.up:
            self.steps.lost(f"the connection to {self._peer.address} was lost")

    @property
    def ready(self) -> bool:
        """Whether the loop is to end, so that everything is drained."""
        return self.steps.step is Step.DRAINING

    def drained(self, reached: bool, now: float) -> None:
        """``reached``: everything captured is on the secondary. No bit may be left either, nor a write in flight: one that fails
        would leave something else on this disk."""
        state = self._peer.brain.state
        still = state.in_flight.certain and state.in_flight.empty and not any(self._volume.capture.dirty_counts())
        clean = not self._peer.brain.out_of_sync_map().any() and not state.taints
        self.steps.drained(reached and still and clean, now)

    def take_back(self) -> None:
        """Tell the secondary that nothing follows its question, while it is connected. This side stays the primary."""
        if WITHDRAWAL in self._peer.connection.features:
            self._peer.connection.send(Handover(final=False, listen=""))

    def give_up(self, error: PydbtError | None = None) -> None:
        """This side stays the primary."""
        self.take_back()
        self._release()
        if not self.request.done.is_set():
            self.request.fail(error or PeerError(f"nothing was changed: {self.steps.refusal}"))
        _log.warning("not changing places: %s", error or self.steps.refusal)

    def complete(self, final: Hello) -> tuple[SecondaryOptions, dict[str, Any]]:
        """The volume is detached: become a replica, and tell the peer. Raises PydbtError while this is still a primary.

        ``final``: the greeting of this primary at its end. Returns the options of the secondary that this process is next, and
        the answer.
        """
        volume, address = self._volume, self._peer.address
        image = (self._peer.brain.config.epoch, self._peer.brain.state.acknowledged)
        options = volume.options
        self._let_go_of_device()
        listen = format_address(*self._secondary.listen)
        try:
            save_listen(options.state_dir, listen)  # first: after a kill it is a replica
            demote(options.source, options.state_dir, handed_to=address)
        except StateError as error:
            self._require_primary(error)
            raise
        self.steps.became_replica()
        refusal = self._tell(final, image)
        self.steps.told()
        if not refusal:
            self._note_successor(address)
            _log.info("%s is the primary now, and %s its replica", address, options.source)
        else:
            self._note_unconfirmed(refusal)
            _log.error(
                "%s is a replica now, and %s did not say that it is the primary: %s", options.source, address, refusal
            )
        return self._secondary, {"secondary": address, "listen": listen, "unconfirmed": refusal}

    def _require_primary(self, error: StateError) -> None:
        """Becoming a replica failed. PeerError unless this side is still a primary, as far as can be read."""
        options = self._volume.options
        try:
            record = load_record(options.state_dir)
        except StateError:
            return
        if record is None or record.promoted:
            return
        self.steps.became_replica()
        self.steps.told()
        self._release()
        raise PeerError(
            f"{options.source} became a replica, and it is not known whether it stays one after a power loss: {error}; "
            f"{self._peer.address} was not told to take over and is a replica too: 'controller promote' it there"
        )

    def _note_successor(self, address: str) -> None:
        """The other side is the primary. While that cannot be written, this side goes on not to know it, which is safe."""
        state_dir = self._volume.options.state_dir
        try:
            save_successor(state_dir, address)
            if (record := load_record(state_dir)) is not None:
                save_record(state_dir, replace(record, handed_to=""))
            save_open_handover(state_dir, as_of_now(OpenHandover(HandoverStage.TAKEN, address)))
        except StateError as error:
            _log.warning("that %s is the primary now could not be written down: %s", address, error)

    def _note_unconfirmed(self, why: str) -> None:
        """The status tells why, if that can be written."""
        state_dir = self._volume.options.state_dir
        if (found := load_open_handover(state_dir)) is not None:
            with contextlib.suppress(StateError):
                save_open_handover(state_dir, replace(found, why=why))

    def _tell(self, final: Hello, image: tuple[int, int]) -> str:
        """Why it is not known that the peer is the primary; empty when it is."""
        host, port = parse_address(self._peer.address)
        try:
            connection, _ = shake_hands(host, port, final, self._peer.connection.secure)
        except (PydbtError, OSError) as error:
            return str(error)
        try:
            connection.send_frames([Handover(True, format_address(*self._secondary.listen), *image)])
            until = time.monotonic() + TAKEOVER_S
            while (left := until - time.monotonic()) > 0:
                match connection.recv_frame(left):
                    case Takeover(final=True, refusal=refusal):
                        return refusal
                    case None:
                        return "it closed the connection"
            return "it gave no answer in time"
        except PydbtError as error:
            return str(error)
        finally:
            connection.close()

    def _release(self) -> None:
        self._let_go_of_device()
        if (listener := self._secondary.listener) is not None:
            self._secondary = replace(self._secondary, listener=None)
            remove_socket(listener)
            listener.close()
        if self._volume.former_address is not None:
            self._volume.former_address.answer()

    def _let_go_of_device(self) -> None:
        if self._hold is not None:
            with contextlib.suppress(OSError):
                os.close(self._hold)
            self._hold = None


def _require_ready(volume: Volume, peer: Peer) -> None:
    """UsageError, BusyError or PeerError unless this secondary could be the primary in a moment."""
    if len(volume.peers) > 1:
        raise UsageError(
            "this volume has several secondaries: change places by hand, as 'Failover' in the documentation says"
        )
    if peer.brain.mode is not Mode.NORMAL or peer.brain.state.taints:
        raise PeerError(f"{peer.address} is not in sync (mode {peer.brain.mode}): wait for mode normal, without taints")
    if HANDOVER not in peer.connection.features:
        raise PeerError(f"{peer.address} is of an earlier version, which cannot take over: change places by hand")


def _as_secondary(options: PrimaryOptions, host: str, port: int) -> SecondaryOptions:
    """What this process is afterwards, and how it is a primary again after that. UsageError for a port that is none."""
    afterwards = options.afterwards or SecondaryOptions(
        target=options.source, listen_host=host, listen_port=port, state_dir=options.state_dir,
        insecure=options.insecure, identity=options.identity, volume_file=options.volume_file,
        accept_sectors=True,  # the volume was on this device before
    )  # fmt: skip
    again = replace(options, accept_replica=False, assume_in_sync=False, new_peer_key=False, afterwards=None)
    return replace(afterwards, listen_host=host, listen_port=port, afterwards=again)


def require_start(options: SecondaryOptions) -> None:
    """PydbtError unless a secondary with these options could start, as far as its network address is not concerned."""
    if options.identity is None:
        check_plain_tcp(options.listen_host, options.insecure)
    else:
        load_identity(options.identity)
    check_target(options.target, state_dir=options.state_dir)
    require_journal_room(options.state_dir, options.journal_limit_bytes)


def listening(options: SecondaryOptions) -> SecondaryOptions:
    """The options with a socket that listens. The new primary may connect to it before anybody answers there. PydbtError."""
    try:
        listener = listen(*options.listen)
    except PydbtError as error:
        raise type(error)(f"this side could not be the secondary: {error} (--listen); nothing was changed") from None
    if unix_path(options.listen_host) is not None:
        return replace(options, listener=listener)
    return replace(options, listener=listener, listen_port=listener.getsockname()[1])


def _listen_address(options: PrimaryOptions, peer: Peer, asked: str | None) -> tuple[str, int]:
    """Where this side waits for its new primary: as asked, as its file says, or here, at the port that the secondary has.

    UsageError for another one than in the file, at which it would wait after a restart, and nobody would connect.
    """
    after = options.afterwards
    known = after.listen if after is not None else None
    if asked:
        address = parse_address(asked)
        if known is not None and after is not None and after.fixed_listen and address != known:
            raise UsageError(
                f"--listen {asked} is not {format_address(*known)}, at which this side waits after a restart by "
                f"{options.volume_file}: leave --listen out, or write this address there and start 'controller run' again"
            )
        return address
    if known is not None:
        return known
    host, port = parse_address(peer.address)
    if unix_path(host) is not None:
        raise UsageError(
            "name the address at which this side is then a secondary with --listen: the connection has none here"
        )
    return peer.connection.local_host, port
