"""Comparing one secondary with the volume: on command, on schedule, and to answer what taints it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pydbt.controller.primary.used_blocks import scan
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import FOLLOWING_MODES

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop
    from pydbt.controller.primary.peer import Peer

# What a person found and did not have repaired is theirs to decide on.
FOUND_BY_VERIFY = "a verification found blocks that differ"

_log = logging.getLogger("pydbt")


class Verification:
    """Part of the primary's loop, and called from its thread alone."""

    def __init__(self, loop: PrimaryLoop, peer: Peer) -> None:
        self._loop, self._peer = loop, peer
        self._answered: tuple[str, ...] = ()  # the taints for which a comparison was begun
        self._next_verify: float | None = None

    def require(self, arguments: dict[str, Any]) -> None:
        """BusyError and UsageError say why ``controller verify`` cannot be done."""
        if arguments.get("cancel"):
            return
        if self._peer.brain.verifier.current is not None:
            raise BusyError("a verification is under way already: wait for it, or end it with --cancel")
        if self._peer.brain.epochs.on and not arguments.get("repair"):
            raise UsageError(
                "with addresses only, a comparison is a part of an epoch, and an epoch copies what differs: run 'controller "
                "verify --repair', which reports what that was"
            )
        if not (arguments.get("repair") or self._peer.record.compared_whole):
            raise UsageError(
                "free space was left out of the first copy, so that both sides may differ there: run 'controller verify "
                "--repair' once, which makes them the same everywhere (or begin a volume with --whole-device)"
            )

    def command(self, arguments: dict[str, Any]) -> None:
        """Carry out ``controller verify``, when nothing stands against it."""
        if arguments.get("cancel"):
            self._loop.take(ev.VerifyCancelled(), self._peer.number)
            self._loop.kept.change_record(self._peer.number, verify=self._last())
            self._loop.keep()
        else:
            self._begin(bool(arguments.get("repair")), arguments.get("rate_limit"))

    def advance(self, now: float) -> None:
        """Begin what is due: a comparison that answers a taint, one that was cut off, or the scheduled one."""
        brain, record, options = self._peer.brain, self._peer.record, self._loop.options
        if brain.mode not in FOLLOWING_MODES or brain.verifier.current is not None:
            return
        taints = tuple(reason for reason in brain.taints if reason != FOUND_BY_VERIFY)
        cut_off = (record.verify or {}).get("cut_off")
        if taints and taints != self._answered:
            self._answered = taints
            _log.warning("the volume is tainted: both sides are compared, and what differs is copied")
            self._begin(True, options.rate_limit_bytes_per_s, used_only=not record.compared_whole)
        elif cut_off:
            _log.info("the verification that was cut off goes on")
            self._begin(bool(cut_off["repair"]), options.rate_limit_bytes_per_s, int(cut_off["block"]))
        elif options.verify_every_s and now >= self._due(now):
            self._next_verify = now + options.verify_every_s
            # The first one copies the free space that the first copy left out: later ones have something to hold on to.
            repair = brain.epochs.on or not record.compared_whole
            self._begin(repair, options.rate_limit_bytes_per_s)

    def _due(self, now: float) -> float:
        """When the next scheduled verification begins: counted from the last one, also one of an earlier run."""
        if self._next_verify is None:
            ended = (self._peer.record.verify or {}).get("ended")
            since = (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds() if ended else float("inf")
            self._next_verify = now + max(0.0, self._loop.options.verify_every_s - since)
        return self._next_verify

    def _begin(self, repair: bool, rate_limit_bytes: int | None, from_block: int = 0, used_only: bool = False) -> None:
        geometry = self._loop.geometry
        firsts, counts = np.zeros(1, np.int64), np.array([geometry.block_count], np.int64)
        if used_only:
            used, _ = scan(self._loop.device, geometry, whole=False)
            firsts, counts = used.first_blocks, used.block_counts
        ends = firsts + counts
        firsts = np.maximum(firsts, from_block)
        left = ends > firsts
        self._loop.take(
            ev.VerifyAsked(firsts[left], (ends - firsts)[left], repair, rate_limit_bytes), self._peer.number
        )

    def ended(self, result: ev.VerifyEnded) -> None:
        """A verification has looked at everything."""
        geometry = self._loop.geometry
        block = geometry.block_bytes
        last = {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "repaired": result.repaired,
            "compared_bytes": result.compared_blocks * block,
            "differing_bytes": result.differing_blocks * block,
            "places": [
                {"offset_bytes": first * block, "length_bytes": count * block} for first, count in result.places
            ],
        }
        everything = result.repaired and result.compared_blocks >= geometry.block_count
        whole = self._peer.record.compared_whole or everything
        self._loop.kept.change_record(self._peer.number, verify=last, compared_whole=whole)
        self._loop.kept.save_if_possible()

    def kept(self) -> dict[str, Any] | None:
        """What is to be written down: the last one that ended, and where one that is under way is to go on."""
        kept, verifier = dict(self._peer.record.verify or {}), self._peer.brain.verifier
        if verifier.current is not None:
            kept["cut_off"] = {"repair": verifier.current.repair, "block": verifier.resume_block()}
        return kept or None

    def _last(self) -> dict[str, Any] | None:
        """What is kept of the last verification that ended."""
        return {name: value for name, value in (self._peer.record.verify or {}).items() if name != "cut_off"} or None

    def report(self) -> dict[str, Any]:
        """For the status: the verification under way, and the last one."""
        return {"running": self._peer.brain.verifier.report(), "last": self._last()}
