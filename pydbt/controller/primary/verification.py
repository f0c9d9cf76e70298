"""Comparing one secondary with the volume: on command, on schedule, and to answer what taints it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.report import LastVerification, VerifyReport
from pydbt.controller.primary.used_blocks import FreeSpace, every_block
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import FOLLOWING_MODES
from pydbt.core.primary.schedule import due_in_s
from pydbt.core.primary.verifier import NO_KEY
from pydbt.device.sysfs import BlockDevice
from pydbt.store.secondary_record import SecondaryRecord

_log = logging.getLogger("pydbt")


class VolumeVerification:
    """Decides when a comparison with one secondary begins, and keeps its results. It returns events for the brain.

    Called from the loop's thread alone. ``number``: the slot of the secondary's record.
    """

    def __init__(
        self, number: int, brain: Primary, metadata: Metadata, options: PrimaryOptions, device: BlockDevice
    ) -> None:
        self._number, self._brain, self._metadata = number, brain, metadata
        self._options, self._space = options, FreeSpace(device, metadata.state.geometry)
        self._answered: tuple[str, ...] = ()  # the taints for which a comparison was begun
        self._next_verify: float | None = None

    @property
    def _record(self) -> SecondaryRecord:
        return self._metadata.record(self._number)

    def require(self, arguments: dict[str, Any]) -> None:
        """Raises BusyError or UsageError when ``controller verify`` cannot be done."""
        if arguments.get("cancel"):
            return
        if not self._brain.state.replica.compares:
            raise UsageError(NO_KEY)
        if self._brain.verifier.current is not None:
            raise BusyError("a verification is under way already: wait for it, or end it with --cancel")
        if self._brain.snapshot_based and not arguments.get("repair"):
            raise UsageError(
                "with addresses only, a comparison is a part of an image, and an image copies what differs: run 'controller "
                "verify --repair', which reports what that was"
            )
        if not arguments.get("repair") and self._free_space() is None:
            raise UsageError(
                "free space was left out of the first copy, and where that was is not known while no file system is mounted: "
                "mount it, or run 'controller verify --repair' once, which makes both sides the same everywhere"
            )

    def command(self, arguments: dict[str, Any]) -> ev.VerifyAsked | ev.VerifyCancelled:
        """The event of ``controller verify``, after ``require``."""
        if arguments.get("cancel"):
            return ev.VerifyCancelled()
        return self._begin(bool(arguments.get("repair")), arguments.get("rate_limit"))

    def cancelled(self) -> None:
        """After the brain has heard that the one under way is cancelled: a later run does not resume it."""
        self._metadata.change_record(self._number, verify=self._last())

    def advance(self, now: float) -> ev.VerifyAsked | None:
        """Begin what is due: a comparison that answers a taint, one that was cut off, or the scheduled one."""
        try:
            return self._due_comparison(now)
        except BusyError:
            return None  # it is looked for where free space is: at a later turn

    def _due_comparison(self, now: float) -> ev.VerifyAsked | None:
        brain, record, options = self._brain, self._record, self._options
        if brain.mode not in FOLLOWING_MODES or brain.verifier.current is not None:
            return None
        taints = tuple(brain.state.taints)
        cut_off = (record.verify or {}).get("cut_off")
        if taints and taints != self._answered:
            asked = self._begin(True, options.rate_limit_bytes_per_s, used_only=not record.compared_whole)
            self._answered = taints
            _log.warning("the volume is tainted: both sides are compared, and what differs is copied")
            return asked
        if not brain.state.replica.compares:
            return None
        if cut_off:
            asked = self._begin(bool(cut_off["repair"]), options.rate_limit_bytes_per_s, int(cut_off["block"]))
            _log.info("the verification that was cut off resumes")
            return asked
        if options.verify_every_s and now >= self._due(now, options.verify_every_s):
            asked = self._begin(brain.snapshot_based, options.rate_limit_bytes_per_s)
            self._next_verify = now + options.verify_every_s
            return asked
        return None

    def _due(self, now: float, every_s: float) -> float:
        """When the next scheduled verification begins: counted from the last one, also one of an earlier run."""
        if self._next_verify is None:
            ended = (self._record.verify or {}).get("ended")
            since = (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds() if ended else None
            self._next_verify = now + due_in_s(every_s, since)
        return self._next_verify

    def _begin(
        self, repair: bool, rate_limit_bytes: int | None, from_block: int = 0, used_only: bool = False
    ) -> ev.VerifyAsked:
        geometry = self._metadata.state.geometry
        free = self._free_space() or Runs.none()
        runs = every_block(geometry)
        if used_only:
            runs = runs.minus(free).minus(self._brain.state.left_out.blocks.extents())
        ends = runs.ends()
        firsts = np.maximum(runs.firsts, from_block)
        left = ends > firsts
        return ev.VerifyAsked(Runs(firsts[left], (ends - firsts)[left]), repair, rate_limit_bytes, free)

    def _free_space(self) -> Runs | None:
        """The free space that the first copy left out, if that was not written down (by an earlier version); None: not known.

        BusyError while it is looked for.
        """
        if self._record.compared_whole or self._brain.state.left_out.blocks.any():
            return Runs.none()
        return self._space.found()

    def ended(self, result: ev.VerifyEnded) -> None:
        """Write down the result of a verification that has looked at everything."""
        geometry = self._metadata.state.geometry
        block = geometry.block_bytes
        last = {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "repaired": result.repaired,
            "compared_bytes": result.compared_blocks * block,
            "differing_bytes": result.differing_blocks * block,
            "filled_bytes": result.filled_blocks * block,
            "unreadable_bytes": result.unreadable_blocks * block,
            "places": [
                {"offset_bytes": first * block, "length_bytes": count * block} for first, count in result.places
            ],
        }
        looked_at = result.compared_blocks + result.unreadable_blocks
        whole = self._record.compared_whole or looked_at >= geometry.block_count
        self._metadata.change_record(self._number, verify=last, compared_whole=whole)
        self._metadata.save_if_possible()

    def kept(self) -> dict[str, Any] | None:
        """To be written down: the last one that ended, and the block at which one under way is to resume."""
        kept, verifier = dict(self._record.verify or {}), self._brain.verifier
        if verifier.current is not None:
            kept["cut_off"] = {"repair": verifier.current.repair, "block": verifier.resume_block()}
        return kept or None

    def _last(self) -> dict[str, Any] | None:
        """The last verification that ended."""
        return {name: value for name, value in (self._record.verify or {}).items() if name != "cut_off"} or None

    def report(self) -> VerifyReport:
        """For the status: the verification under way, and the last one."""
        last = self._last()
        return VerifyReport(self._brain.verifier.progress(), None if last is None else LastVerification.of(last))
