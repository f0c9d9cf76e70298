"""What lets the primary call its replica up to date: the audit, taints that last, and verifications."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pydbt.controller.used_blocks import scan
from pydbt.core import primary_events as ev
from pydbt.core.audit import FAULTS, Audit, AuditRecord, Look
from pydbt.core.errors import BusyError, StateError, UsageError
from pydbt.core.modes import FOLLOWING_MODES

if TYPE_CHECKING:
    from pydbt.controller.primary_loop import PrimaryLoop

# What a person found and did not have repaired is theirs to decide on.
FOUND_BY_VERIFY = "a verification found blocks that differ"

_log = logging.getLogger("pydbt")


class Assurance:
    """Part of the primary's loop, and called from its thread alone."""

    def __init__(self, loop: PrimaryLoop) -> None:
        self._loop = loop
        self._audit = Audit(AuditRecord.of(loop.state.audit), inherited=loop.config.quiet_held)
        self._answered: tuple[str, ...] = ()  # the taints for which a comparison was begun
        self._next_verify: float | None = None

    # --- the audit ----------------------------------------------------------------------------------------
    def look(self, now: float) -> list[ev.Event]:
        """Compare the counts once; what taints, as events. Raises DeviceError."""
        device, capture, brain = self._loop.device, self._loop.capture, self._loop.brain
        before, flying = device.counters(), device.in_flight_writes()
        counters = capture.counters()
        after = device.counters()
        counted = before.write_sectors + before.discard_sectors
        still = counted == after.write_sectors + after.discard_sectors
        look = Look(
            attach=capture.attach_name(),
            seen_sectors=counters.submitted_sectors,
            completed_sectors=counters.completed_sectors,
            counted_sectors=counted if device.counts_io() else None,
            idle=still and not flying and not device.in_flight_writes(),
            faults={name: getattr(counters, name) for name in FAULTS},
        )
        drained = capture.consumer_position() == capture.producer_position()
        settled = brain.in_flight.certain and brain.in_flight.empty and drained
        return [ev.Tainted(reason) for reason in self._audit.look(look, settled, now)]

    # --- what lasts ---------------------------------------------------------------------------------------
    def keep(self) -> None:
        """Write down what has changed: taints at once, so that no crash makes the volume look better than it is."""
        loop = self._loop
        since = {entry["reason"]: entry["since"] for entry in loop.state.taints}
        taints = [{"reason": reason, "since": since.get(reason) or _now()} for reason in loop.brain.taints]
        verifier, last = loop.brain.verifier, dict(loop.state.verify or {})
        if verifier.current is not None:
            last["cut_off"] = {"repair": verifier.current.repair, "block": verifier.resume_block()}
        state = replace(loop.state, taints=taints, audit=self._audit.record.as_dict(), verify=last or None)
        if loop.brain.mode in FOLLOWING_MODES:  # how far the replica is, so that one that goes back is noticed
            epoch, sequence = loop.brain.replica_position
            state = replace(state, epoch=epoch, sequence=sequence)
        if state == loop.state and not loop.unsaved:
            return
        try:
            loop.save(state)
        except StateError as error:
            _log.error("%s", error)

    def taints_changed(self) -> bool:
        """Whether there is a taint that is not written down yet, or one written down that is answered."""
        return [entry["reason"] for entry in self._loop.state.taints] != self._loop.brain.taints

    # --- verification -------------------------------------------------------------------------------------
    def verify(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out ``controller verify``; the answer is a status of it. BusyError and UsageError say why not."""
        loop = self._loop
        if arguments.get("cancel"):
            loop.take(ev.VerifyCancelled())
            loop.state = replace(loop.state, verify=self._last())
            self.keep()
            return self.report()
        if loop.brain.verifier.current is not None:
            raise BusyError("a verification is under way already: wait for it, or end it with --cancel")
        repair = bool(arguments.get("repair"))
        if loop.brain.epochs.on and not repair:
            raise UsageError(
                "with addresses only, a comparison is a part of an epoch, and an epoch copies what differs: run 'controller "
                "verify --repair', which reports what that was"
            )
        if not (repair or loop.state.compared_whole):
            raise UsageError(
                "free space was left out of the first copy, so that both sides may differ there: run 'controller verify "
                "--repair' once, which makes them the same everywhere (or begin a volume with --whole-device)"
            )
        self._begin(repair, arguments.get("rate_limit"))
        return self.report()

    def advance(self, now: float) -> None:
        """Begin what is due: a comparison that answers a taint, one that was cut off, or the scheduled one."""
        loop, brain = self._loop, self._loop.brain
        if brain.mode not in FOLLOWING_MODES or brain.verifier.current is not None:
            return
        taints = tuple(reason for reason in brain.taints if reason != FOUND_BY_VERIFY)
        cut_off = (loop.state.verify or {}).get("cut_off")
        if taints and taints != self._answered:
            self._answered = taints
            _log.warning("the volume is tainted: both sides are compared, and what differs is copied")
            self._begin(True, loop.options.rate_limit_bytes_per_s, used_only=not loop.state.compared_whole)
        elif cut_off:
            _log.info("the verification that was cut off goes on")
            self._begin(bool(cut_off["repair"]), loop.options.rate_limit_bytes_per_s, int(cut_off["block"]))
        elif loop.options.verify_every_s and now >= self._due(now):
            self._next_verify = now + loop.options.verify_every_s
            # The first one copies the free space that the first copy left out: later ones have something to hold on to.
            repair = brain.epochs.on or not loop.state.compared_whole
            self._begin(repair, loop.options.rate_limit_bytes_per_s)

    def _due(self, now: float) -> float:
        """When the next scheduled verification begins: counted from the last one, also one of an earlier run."""
        if self._next_verify is None:
            ended = (self._loop.state.verify or {}).get("ended")
            since = (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds() if ended else float("inf")
            self._next_verify = now + max(0.0, self._loop.options.verify_every_s - since)
        return self._next_verify

    def _begin(self, repair: bool, rate_limit_bytes: int | None, from_block: int = 0, used_only: bool = False) -> None:
        loop = self._loop
        geometry = loop.config.geometry
        firsts, counts = np.zeros(1, np.int64), np.array([geometry.block_count], np.int64)
        if used_only:
            used, _ = scan(loop.device, geometry, whole=False)
            firsts, counts = used.first_blocks, used.block_counts
        ends = firsts + counts
        firsts = np.maximum(firsts, from_block)
        left = ends > firsts
        loop.take(ev.VerifyAsked(firsts[left], (ends - firsts)[left], repair, rate_limit_bytes))

    def ended(self, result: ev.VerifyEnded) -> None:
        """A verification has looked at everything."""
        loop = self._loop
        block = loop.config.geometry.block_bytes
        last = {
            "ended": _now(),
            "repaired": result.repaired,
            "compared_bytes": result.compared_blocks * block,
            "differing_bytes": result.differing_blocks * block,
            "places": [{"offset_bytes": first * block, "length_bytes": count * block} for first, count in result.places],
        }
        everything = result.repaired and result.compared_blocks >= loop.config.geometry.block_count
        loop.state = replace(loop.state, verify=last, compared_whole=loop.state.compared_whole or everything)
        self.keep()

    def _last(self) -> dict[str, Any] | None:
        """What is kept of the last verification that ended."""
        return {name: value for name, value in (self._loop.state.verify or {}).items() if name != "cut_off"} or None

    def report(self) -> dict[str, Any]:
        """For the status: the audit, and the verification under way and the last one."""
        running = self._loop.brain.verifier.report()
        return {"audit": self._audit.report(), "verify": {"running": running, "last": self._last()}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
