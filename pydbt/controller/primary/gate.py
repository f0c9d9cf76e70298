"""Asks the secondaries of a volume for their role, before anything writes to its device. Nothing of the device is opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary.handshake import greeted, hello_of
from pydbt.controller.primary.report import GateReport
from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.errors import PeerError, StateError
from pydbt.core.primary.gate import (
    GateOutcome,
    GateVerdict,
    HeardRole,
    RoleAnswer,
    answer_of,
    no_state,
    silent,
    verdict_of,
)
from pydbt.core.protocol.frames import HELLO_FEATURES, Hello
from pydbt.core.protocol.role import ASKS_ROLE
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.units import MAX_COMPARED_BYTES
from pydbt.network.address import check_plain_tcp, format_address, split_address
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.boot import boot_id
from pydbt.store.gate_file import GateRecord, load_gate, save_gate
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.peer_pin import PeerPin
from pydbt.store.replica_state import load_record
from pydbt.store.successor import load_successor
from pydbt.store.volume_state import VolumeState, load_state

ASK_AGAIN_S = 1.0
"""As often as a run tries to connect."""

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class GateOptions:
    """Who is asked, and how each side proves itself; as of a primary. ``secondaries``: those of the configuration."""

    state_dir: Path
    secondaries: tuple[tuple[str, int], ...] = ()
    peers: tuple[str, ...] = ()
    identity: Path | None = None
    insecure: bool = False

    @classmethod
    def of(cls, options: PrimaryOptions | SecondaryOptions) -> GateOptions:
        """A replica that was promoted has its secondaries on record alone, unless its file names one for that role."""
        chosen = options.afterwards or options if isinstance(options, SecondaryOptions) else options
        if isinstance(chosen, SecondaryOptions):
            return cls(chosen.state_dir, identity=chosen.identity, insecure=chosen.insecure)
        return cls(chosen.state_dir, chosen.secondaries, chosen.peers, chosen.identity, chosen.insecure)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A secondary that is asked: its address, and what it must prove."""

    address: tuple[str, int]
    hello: Hello
    secure: Secure | None
    expected: str

    def ask(self) -> RoleAnswer:
        """Its answer. Raises nothing: whatever goes wrong is no answer."""
        where = format_address(*self.address)
        try:
            connection, frame = greeted(*self.address, self.hello, self.secure)
        except (PeerError, OSError) as error:
            return silent(where, error)
        connection.close()
        return answer_of(where, frame, self.hello, self.expected)


def ask_gate(
    options: GateOptions,
    policy: OnUnreachable,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> GateVerdict:
    """Whether the volume may be checked and mounted; written down for the status. Asks, and waits if the policy is to wait.

    Raises UsageError and StateError when it cannot be asked: then it must not be mounted.
    """
    began, told = now(), ""
    answers: dict[_Asked | None, RoleAnswer] = {}
    while True:
        if not answers or None in answers:  # the state's file system may be mounted meanwhile
            state, record = load_state(options.state_dir), load_record(options.state_dir)
            if (verdict := _without_asking(options, state, record)) is not None:
                return verdict
            unknown = no_state(str(options.state_dir))
            answers = {None: unknown} if state is None else dict.fromkeys(_secondaries(options, state), unknown)
        answers |= {one: one.ask() for one, last in answers.items() if one and last.heard is HeardRole.NOTHING}
        if (verdict := verdict_of(answers.values(), policy, now() - began)) is not None:
            _keep(options, verdict)
            return verdict
        waits = "; ".join(f"{one.address}: {one.words}" for one in answers.values() if one.heard is HeardRole.NOTHING)
        if waits != told:
            _log.warning("%s; it is asked again for %g s before the volume is mounted", waits, policy.wait_s)
            told = waits
        sleep(ASK_AGAIN_S)


def gate_report(state_dir: Path) -> GateReport | None:
    """What the gate found in this boot; None where it was not asked."""
    record = load_gate(state_dir, boot_id())
    return None if record is None else GateReport(record.outcome, record.asked, record.words)


def _without_asking(
    options: GateOptions, state: VolumeState | None, record: ReplicaRecord | None
) -> GateVerdict | None:
    """Of a side that is no primary any more, or has no secondary. None without a state: then nothing is known."""
    if record is not None and not record.promoted:
        successor = load_successor(options.state_dir)
        since = f" since {successor.since}, when {successor.address} became the primary" if successor else ""
        handover = load_open_handover(options.state_dir)
        more = f": {handover.words}" if handover is not None else ""
        return GateVerdict(GateOutcome.SHUT, f"this side is a replica{since}{more}")
    if state is None and record is not None:
        return GateVerdict(GateOutcome.OPEN, "it was promoted here, and has not been replicated since")
    if state is not None and not state.secondaries:
        return GateVerdict(GateOutcome.OPEN, "it was never replicated")
    return None


def _secondaries(options: GateOptions, state: VolumeState) -> list[_Asked]:
    """Every secondary on record, at its address. A new address in the place of one: it has moved (as at a start)."""
    known = [split_address(record.address) for record in state.secondaries]
    named = [address for address in options.secondaries if address not in known]
    unnamed = [address for address in known if address not in options.secondaries]
    moved = {unnamed[0]: named[0]} if len(named) == len(unnamed) == 1 else {}
    given = dict(zip(options.secondaries, options.peers, strict=False))
    identity = load_identity(options.identity) if options.identity is not None else None
    asked = []
    for record, address in zip(state.secondaries, known, strict=True):
        address = moved.get(address, address)
        if identity is None:
            check_plain_tcp(address[0], options.insecure)
        # The largest logical block: a target's must be no larger, and the device may not be looked at yet.
        hello = hello_of(state, MAX_COMPARED_BYTES, 0, record.generations)
        features = (*HELLO_FEATURES, ASKS_ROLE, *(one for one in hello.features if one not in HELLO_FEATURES))
        pin = PeerPin(options.state_dir, given.get(address), record.pin_name)
        secure = None if identity is None else Secure(identity, pin)
        asked.append(_Asked(address, replace(hello, features=features), secure, record.replica))
    return asked


def _keep(options: GateOptions, verdict: GateVerdict) -> None:
    if not options.state_dir.is_dir():
        return  # none is made: it may be a folder of a file system that is not mounted
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        save_gate(options.state_dir, GateRecord(str(verdict.outcome), verdict.words, moment, boot_id()))
    except StateError as error:  # the status lacks it; the verdict stands
        _log.warning("%s", error)
