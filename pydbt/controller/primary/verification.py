"""Comparing one secondary with the volume: on command, on schedule, and to answer what taints it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import numpy as np

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.report import LastVerification, RestReport, VerifyReport
from pydbt.controller.primary.used_blocks import FreeSpace, UsedBlocksSearch, everything
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.comparison_blocks import blocks_to_compare
from pydbt.core.primary.modes import FOLLOWING_MODES
from pydbt.core.primary.schedule import CANCELLED_REST_S, TaintRest, TaintRests, due_in_s
from pydbt.core.primary.verifier import NO_KEY, VerifyProgress
from pydbt.core.units import Geometry
from pydbt.device.sysfs import BlockDevice
from pydbt.store.secondary_record import SecondaryRecord

_log = logging.getLogger("pydbt")


@dataclass(slots=True)
class _Search:
    """The blocks in use are looked for, and then a comparison begins. ``used`` is set by the thread that has found them.

    ``answers``: numbers of the taints that there were when it began; ``free_too``: free space is compared as well.
    """

    repair: bool
    rate_limit_bytes: int | None
    from_block: int
    answers: tuple[int, ...]
    free_too: bool
    used: ev.UsedBlocks | None = None

    def found(self, used: ev.UsedBlocks) -> None:
        self.used = used


@dataclass(slots=True)
class _Answer:
    """A comparison that answers these taints, and began at a moment of the monotonic clock."""

    reasons: tuple[str, ...]
    began_at: float
    ended: bool = False


class VolumeVerification:
    """Decides when a comparison with one secondary begins, and keeps its results. It returns events for the brain.

    Called from the loop's thread alone. ``number``: the slot of the secondary's record. A comparison that answers a taint needs
    the blocks in use, and begins when they are found.
    """

    def __init__(
        self, number: int, brain: Primary, metadata: Metadata, options: PrimaryOptions, device: BlockDevice
    ) -> None:
        self._number, self._brain, self._metadata = number, brain, metadata
        self._options, self._device = options, device
        self._space = FreeSpace(device, metadata.state.geometry)
        self._search: _Search | None = None
        self._cancelled_until = -inf  # no taint is answered before
        self._rests = TaintRests()
        self._answer = _Answer((), 0.0)  # of the comparison that began last
        self._rest: TaintRest | None = None
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
        if self._brain.verifier.current is not None or self._search is not None:
            raise BusyError("a verification is under way already: wait for it, or end it with --cancel")
        if self._brain.snapshot_based and not arguments.get("repair"):
            raise UsageError(
                "with addresses only, a comparison is a part of an image, and an image copies what differs: run 'controller "
                "verify --repair', which reports what that was"
            )
        if not arguments.get("repair") and self._untold and self._space.found() is None:
            raise UsageError(
                "free space was left out of the first copy, and where that was is not known while no file system is mounted: "
                "mount it, or run 'controller verify --repair' once, which makes both sides the same everywhere"
            )

    def command(self, arguments: dict[str, Any]) -> ev.VerifyAsked | ev.VerifyCancelled | None:
        """The event of ``controller verify``, after ``require``; None: it comes from ``advance``, with the blocks in use."""
        if arguments.get("cancel"):
            self._search = None
            return ev.VerifyCancelled()
        return self._begin(time.monotonic(), bool(arguments.get("repair")), arguments.get("rate_limit"), free_too=True)

    def cancelled(self) -> None:
        """After the brain has heard that the one under way is cancelled: a later run does not resume it.

        A taint is still to be answered: no end of a comparison but its own makes the replica up to date.
        """
        self._metadata.change_record(self._number, verify=self._last())
        self._answer = _Answer((), 0.0)
        if self._brain.state.taints:
            self._cancelled_until = time.monotonic() + CANCELLED_REST_S
            _log.warning(
                "the volume stays tainted, and its replica inconsistent, until all was compared: that begins again in %d "
                "minutes, or with 'controller verify'",
                CANCELLED_REST_S // 60,
            )

    def advance(self, now: float) -> ev.VerifyAsked | None:
        """Begin what is due: a comparison that answers a taint, one that was cut off, or the scheduled one."""
        brain, record, options = self._brain, self._record, self._options
        self._rest = None
        if self._search is not None:
            return self._searched()
        if brain.mode not in FOLLOWING_MODES or brain.verifier.current is not None:
            return None
        self._note_answer(now)
        cut_off = (record.verify or {}).get("cut_off")
        if brain.state.taints and not self._must_rest(now):
            _log.warning("the volume is tainted: both sides are compared, and what differs is copied")
            return self._begin(now, True, options.rate_limit_bytes_per_s, free_too=record.compared_whole)
        if not brain.state.replica.compares:
            return None
        if cut_off:
            _log.info("the verification that was cut off resumes")
            limit, block = options.rate_limit_bytes_per_s, int(cut_off["block"])
            return self._begin(now, bool(cut_off["repair"]), limit, free_too=True, from_block=block)
        if options.verify_every_s and now >= self._due(now, options.verify_every_s):
            self._next_verify = now + options.verify_every_s
            return self._begin(now, brain.snapshot_based, options.rate_limit_bytes_per_s, free_too=True)
        return None

    def _note_answer(self, now: float) -> None:
        """After a comparison: whether it has answered taints. One that was cut off has not, unless a copy took its place."""
        if self._answer.ended or not self._brain.state.replica.compares:
            self._rests.answered(self._answer.reasons, self._answer.began_at, now)
        self._answer = _Answer((), now)

    def _must_rest(self, now: float) -> bool:
        """Whether taints are answered later: their cause does not end, or somebody has cancelled the last comparison."""
        if now < self._cancelled_until:
            self._rest = TaintRest(self._cancelled_until, "the last comparison was cancelled")
        elif (rest := self._rests.look(self._brain.state.taints, now)) is not None:
            self._rest = rest
            if not rest.told:
                _log.warning(
                    "tainted again and again by the same: %s; each comparison now begins after a rest, which grows up to an "
                    "hour, and the replica stays inconsistent meanwhile: remove the cause, then run 'controller verify'",
                    rest.reason,
                )
        return self._rest is not None

    def _due(self, now: float, every_s: float) -> float:
        """When the next scheduled verification begins: counted from the last one, also one of an earlier run."""
        if self._next_verify is None:
            ended = (self._record.verify or {}).get("ended")
            since = (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds() if ended else None
            self._next_verify = now + due_in_s(every_s, since)
        return self._next_verify

    @property
    def _geometry(self) -> Geometry:
        return self._metadata.state.geometry

    @property
    def _untold(self) -> bool:
        """Whether an earlier version has left free space out of the first copy, and did not write down where."""
        return not self._record.compared_whole and not self._brain.state.left_out.blocks.any()

    def _begin(
        self, now: float, repair: bool, rate_limit_bytes: int | None, *, free_too: bool, from_block: int = 0
    ) -> ev.VerifyAsked | None:
        """At once where the blocks in use do not matter. One that does not look at every block answers nothing."""
        self._cancelled_until = -inf
        answers = self._brain.state.taint_numbers if not from_block else ()
        self._answer = _Answer(tuple(self._brain.state.taints) if answers else (), now)
        search = _Search(repair, rate_limit_bytes, from_block, answers, free_too)
        if not self._untold and not (answers and self._brain.state.left_out.blocks.any()):
            search.used = everything(self._geometry, "which of them are in use does not matter")
            return self._asked(search, search.used)
        self._search = search
        found = UsedBlocksSearch(self._device, self._geometry, False, search.found).at_once()
        if found is not None:
            search.found(found)
        return self._searched()

    def _searched(self) -> ev.VerifyAsked | None:
        """What begins now that the blocks in use are found. None: they are not, or nobody can compare at the moment."""
        search, brain = self._search, self._brain
        if search is None or search.used is None:
            return None
        if brain.mode not in FOLLOWING_MODES and not brain.state.replica.compares:
            return None
        self._search = None
        return self._asked(search, search.used)

    def _asked(self, search: _Search, used: ev.UsedBlocks) -> ev.VerifyAsked:
        first, end = search.from_block, max(search.from_block, self._geometry.block_count)
        chosen = blocks_to_compare(
            Runs.of_ranges(np.array([first], np.int64), np.array([end], np.int64)),
            self._brain.state.left_out.blocks.extents(),
            used,
            untold=self._untold,
            tainted=bool(search.answers),
            free_too=search.free_too,
        )
        return ev.VerifyAsked(
            chosen.runs, search.repair, search.rate_limit_bytes, chosen.free, chosen.in_use, search.answers
        )

    def ended(self, result: ev.VerifyEnded) -> None:
        """Write down the result of a verification that has looked at everything."""
        self._answer.ended = True
        geometry = self._metadata.state.geometry
        block = geometry.block_bytes
        last = {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "repaired": True,  # since 0.2 always: earlier versions left what differed, when they were not told to copy it
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
        self._metadata.save()

    def kept(self) -> dict[str, Any] | None:
        """To be written down: the last one that ended, and the block at which one under way is to resume."""
        kept, verifier = dict(self._record.verify or {}), self._brain.verifier
        if verifier.current is not None:
            kept["cut_off"] = {"repair": verifier.current.repair, "block": verifier.resume_block()}
        return kept or None

    def _last(self, record: SecondaryRecord | None = None) -> dict[str, Any] | None:
        """The last verification that ended."""
        kept = (record or self._record).verify or {}
        return {name: value for name, value in kept.items() if name != "cut_off"} or None

    def report(self) -> VerifyReport:
        """For the status: the verification under way, the last one, and when taints are answered that have to wait. One is under
        way until its result is on the disk."""
        last = self._last(self._metadata.shown(self._number))
        running = self._brain.verifier.progress()
        if running is None and self._search is not None:
            running = VerifyProgress(self._search.repair, self._geometry.size_bytes, 0, 0, 0)
        rest = None
        if self._rest is not None and running is None:
            until = datetime.now(UTC) + timedelta(seconds=self._rest.until - time.monotonic())
            rest = RestReport(until.isoformat(timespec="seconds"), self._rest.reason)
        if running is None and (result := self._last()) is not None and result != last:
            running = _all_of(result)
        return VerifyReport(running, None if last is None else LastVerification.of(last), rest)


def _all_of(last: dict[str, Any]) -> VerifyProgress:
    """At its end."""
    whole = last["compared_bytes"] + last["unreadable_bytes"]
    return VerifyProgress(True, whole, whole, last["differing_bytes"], last["filled_bytes"])
