"""The demo's steps in order: make a volume, replicate it, cut the link under load, mend it, compare."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.units import MIB, format_bytes
from tests.lab.demo.controllers import PKI, PRIMARY, SECONDARY, await_end, start, state_of
from tests.lab.demo.scratch import Scratch
from tests.lab.demo.summary import Outage, Report
from tests.lab.demo.work import Work
from tests.lab.disks import attach, image, mkfs_words
from tests.lab.identities import make_identities
from tests.lab.images import GRAIN_BYTES, Numbers, differing_blocks
from tests.lab.load import Load, load
from tests.lab.patience import Patience, StepFailed
from tests.lab.programs import PROGRAM, ROOT, Status

PORT = 7790
# Noticed in seconds here; the default of 15 suits networks that hiccup.
ACKNOWLEDGE_TIMEOUT_S = 4
NORMAL_WORK_S, LAST_WORK_S = 9.0, 3.0
_SAMPLE_S = 0.2
_RESYNC_TIMEOUT_S = 300.0
_COMPARISONS = 5
# Lazy initialization would go on writing for minutes, and blur every figure.
_MKFS_OPTIONS = {"ext4": ("-E", "lazy_itable_init=0,lazy_journal_init=0"), "xfs": ()}
LEAST_BYTES = {"ext4": 64 * MIB, "xfs": 320 * MIB}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the demo is asked to be."""

    filesystem: str
    size_bytes: int
    outage_seconds: float
    block_bytes: int | None


class Play:
    """One demo in one scratch folder. ``say`` is given a line for each step."""

    def __init__(self, scratch: Scratch, choice: Choice, patience: Patience, say: Callable[[str], None]) -> None:
        self._scratch, self._choice, self._patience, self._say = scratch, choice, patience, say
        self.device = Path()

    def make_volume(self) -> None:
        """A mounted file system with files on it."""
        scratch, patience, kind = self._scratch, self._patience, self._choice.filesystem
        self.device = attach(image(scratch.image, self._choice.size_bytes)).path
        patience.run(*mkfs_words(kind, self.device, *_MKFS_OPTIONS[kind]))
        scratch.mount_point.mkdir()
        patience.run("mount", "-t", kind, self.device, scratch.mount_point)
        self._work = Work(scratch.mount_point, scratch.archive, self._choice.size_bytes, patience)
        self._work.unpack()
        self._work.sync()
        size = format_bytes(self._choice.size_bytes)
        self._say(f"made a volume: {kind} of {size} on {self.device}, mounted, with {self._work.files:,} files on it")

    def start(self) -> None:
        """Both controllers, until the replica is in sync for the first time."""
        scratch, patience = self._scratch, self._patience
        address = f"{scratch.cable.far_address}:{PORT}"
        scratch.cable.lay()
        make_identities(scratch.folder / PKI, PRIMARY, SECONDARY)
        self._secondary = start(
            SECONDARY,
            scratch.folder,
            ["secondary", scratch.replica, "--listen", address, "--create", self._choice.size_bytes],
            scratch.cable,
        )
        patience.until(self._secondary.answers, "the secondary listens")
        self._say(f"started `controller secondary` in the network namespace {scratch.cable.namespace}, at {address}")
        block = ["--block-size", self._choice.block_bytes] if self._choice.block_bytes else []
        self._primary = start(
            PRIMARY,
            scratch.folder,
            ["run", self.device, "--secondary", address, "--ack-timeout", ACKNOWLEDGE_TIMEOUT_S, *block],
        )
        patience.until(self._primary.answers, "the primary has loaded its programs and answers")
        self._say(f"started `controller run {self.device}`: every write is tracked from here on")
        self.until_normal()
        sent = self._status()["sent_bytes"]
        self._say(f"in sync for the first time: {format_bytes(sent)} sent, because only used blocks were copied")

    def work_normally(self, seconds: float) -> None:
        """Everything at once for a while, a trim in the middle of it; then wait until all of it is safe."""
        with contextlib.ExitStack() as stack:
            running = self.loaded(stack)
            self._work_for(seconds / 3)
            self._work.trim()
            self._work_for(seconds * 2 / 3)
            running.stop()
        self._wait()
        work = self._work
        self._say(
            f"worked on it: {work.files:,} files unpacked and {work.deleted_files:,} deleted, {work.transactions:,} database "
            f"transactions, {work.direct_writes:,} direct writes and {work.trims} trims so far; all durable on the secondary"
        )

    def outage(self) -> Outage:
        """Cut the link under load, work on, mend it, and wait until the replica is in sync."""
        cable, patience = self._scratch.cable, self._patience
        with contextlib.ExitStack() as stack:
            running = self.loaded(stack)
            patience.sleep(1.0)
            self.until_normal()
            before, cut_at, worst = self._status(), time.monotonic(), 0
            cable.cut()
            self._say("pulled the cable under load; programs go on writing")
            noticed = False
            while (down := time.monotonic() - cut_at) < self._choice.outage_seconds or not noticed:
                status = self._status()
                worst = max(worst, status["out_of_sync_bytes"])
                if not noticed and status["mode"] == "unsynchronized":
                    noticed = True
                    self._say("the outage was noticed: mode unsynchronized, writes are tracked and not sent")
                if down > self._choice.outage_seconds + _RESYNC_TIMEOUT_S:
                    raise StepFailed("the primary did not notice that the link is down")
                patience.sleep(_SAMPLE_S)
            running.stop()
        self._work.sync()
        self._until_applied()
        differing = len(self._compare())
        mending = self._status()
        worst = max(worst, mending["out_of_sync_bytes"])
        down = time.monotonic() - cut_at
        self._say(f"put the load to rest and compared both images: {format_bytes(differing * GRAIN_BYTES)} differ")
        mended_at = time.monotonic()
        cable.mend()
        self.until_normal()
        resync = time.monotonic() - mended_at
        self._wait()
        after = self._status()
        self._say(f"plugged the cable in again: in sync after {resync:.1f} s")
        return Outage(before, mending, after, worst, differing, down, resync)

    def stop(self, outage: Outage) -> Report:
        """Unmount, stop both ends cleanly, replay the journal, compare."""
        scratch, patience = self._scratch, self._patience
        patience.run("umount", scratch.mount_point)
        self._wait()
        last = self._status()
        self._control("down", PRIMARY)
        await_end(self._primary, patience)
        self._secondary.process.terminate()
        await_end(self._secondary, patience)
        replayed = patience.run(
            *PROGRAM, "secondary", scratch.replica, "--state", state_of(scratch.folder, SECONDARY), "--replay-only"
        )
        self._say(f"unmounted, and stopped both ends; the secondary says: {replayed.strip()}")
        differing = len(self._compare())
        return Report(self._choice.size_bytes, outage, last, differing)

    def look(self, outage: Outage) -> Report:
        """Compare while everything runs on; the volume is at rest but for the file system's own late writes."""
        for _ in range(_COMPARISONS):
            self._work.sync()
            self._wait()
            self._until_applied()
            differing = len(self._compare())
            if not differing:
                break
        return Report(self._choice.size_bytes, outage, self._status(), differing)

    # --- parts of steps -----------------------------------------------------------------------------------
    def loaded(self, stack: contextlib.ExitStack) -> Load:
        transfer = stack.enter_context(self._work.database())
        write = stack.enter_context(self._work.direct_writer())
        running = stack.enter_context(load())
        running.add(transfer, 0.02)
        running.add(write, 0.01)
        running.add(self._work.replace_tree, 1.0)
        return running

    def _work_for(self, seconds: float) -> None:
        """Let the load run, as long as both controllers do."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._status()
            self._secondary.status()
            self._patience.sleep(_SAMPLE_S)

    def _status(self) -> Status:
        return self._primary.status()

    def until_normal(self) -> None:
        """Until the replica is in sync."""

        def is_normal() -> bool:
            self._secondary.status()
            return self._primary.is_normal()

        self._patience.until(is_normal, "the replica is in sync", _RESYNC_TIMEOUT_S)

    def _until_applied(self) -> None:
        def is_applied() -> bool:
            status = self._secondary.status()
            return not status["unapplied_bytes"] or status["staged_bytes"] > 0  # a stage waits for its COMMIT

        self._patience.until(is_applied, "the secondary applies what it has")

    def _wait(self) -> None:
        """What `controller wait` is for: everything written so far is durable on the secondary."""
        self._control("wait", PRIMARY, "--timeout", _RESYNC_TIMEOUT_S)

    def _control(self, command: str, role: str, *options: object) -> None:
        state_dir = state_of(self._scratch.folder, role)
        self._patience.run(*PROGRAM, command, "--state", state_dir, *options, timeout_s=_RESYNC_TIMEOUT_S + 30)

    def _compare(self) -> Numbers:
        source, replica, size = self._scratch.image, self._scratch.replica, self._choice.size_bytes
        if replica.stat().st_size != size:
            raise StepFailed(f"{self.device} has {size} bytes and {replica} {replica.stat().st_size}")
        return differing_blocks(self.device, replica, size, backing=source, check=self._patience.check)


def how_to_play(scratch: Scratch, device: Path) -> str:
    """Commands for a demo that was kept."""
    cable, controller = scratch.cable, ROOT / ".venv/bin/controller"
    lines = (
        (f"{controller} status {device}", "how it stands; with --json for programs"),
        (f"{controller} status --state {state_of(scratch.folder, SECONDARY)}", "the same of the replica"),
        (f"cp -a /usr/share/doc {scratch.mount_point}/", "work on the volume"),
        (f"{controller} wait {device}", "until all of that is durable on the secondary"),
        (f"ip -n {cable.namespace} link set {cable.far} down", "pull the cable; `up` plugs it in again"),
        (f"{controller} pause {device}", "and `resume`"),
        (f"tail -f {scratch.folder}/*.log", "what both controllers say"),
        (f"{ROOT}/scripts/demo --stop {scratch.folder}", "end it and remove everything"),
    )
    width = max(len(command) for command, _ in lines)
    return "\n".join(
        ("It runs on. To play with it, as root:", *(f"  {one:<{width}}  # {other}" for one, other in lines))
    )
