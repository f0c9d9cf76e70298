"""A volume that is armed is tracked without a controller, and the next run compares what was written, and not a block more.

A reboot is imitated: the programs are taken away, and what was written down is made that of another boot.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.kernel.capture import Capture
from pydbt.kernel.replace import tracked_words
from pydbt.store.map_file import load_map
from pydbt.store.secondary_record import MAP_FILE_NAME
from pydbt.store.volume_state import VolumeState, load_state, save_state
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.programs import PROGRAM, ROOT, Outcome, command
from tests.lab.rounds import short

BLOCK = 4096
SIZE = 64 << 20
ANOTHER_BOOT = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[Cluster]:
    """In sync, with a file in its file system; the primary has ended, and its programs track."""
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                (folder / "file").write_bytes(chance.randbytes(3 << 20))
            both.wait()
            assert both.primary.terminate() == 0
            yield both


def state_of(both: Cluster) -> VolumeState:
    state = load_state(both.primary_state)
    assert state is not None
    return state


def ask(both: Cluster, word: str) -> Outcome:
    return command(word, both.source.path, "--state", both.primary_state)


def done(both: Cluster, word: str) -> str:
    outcome = ask(both, word)
    assert outcome.code == 0, outcome
    return outcome.output


def reboot(both: Cluster) -> None:
    """After ``disarm``, or without it: then nobody has made a mark."""
    state = state_of(both)
    Capture.remove_pins(pin_dir_of(state))
    clean = state.clean and {**state.clean, "boot_id": ANOTHER_BOOT}
    save_state(both.primary_state, replace(state, boot_id=ANOTHER_BOOT, clean=clean))


def write(both: Cluster, *blocks: int) -> None:
    descriptor = os.open(both.source.path, os.O_WRONLY)
    for block in blocks:
        os.pwrite(descriptor, os.urandom(BLOCK), block * BLOCK)
    os.fsync(descriptor)
    os.close(descriptor)


def tracked_blocks(both: Cluster) -> int:
    words = tracked_words(pin_dir_of(state_of(both)))
    assert words is not None
    return sum(int(word).bit_count() for word in words)


def out_of_sync_bytes(both: Cluster) -> int:
    """What the map on disk and the bitmaps in the kernel name together."""
    kept, words = load_map(both.primary_state / MAP_FILE_NAME), tracked_words(pin_dir_of(state_of(both)))
    assert kept is not None
    if words is not None:
        kept[1].merge_words(words)
    return kept[1].count() * BLOCK


def run_and_compare(both: Cluster, when: str) -> tuple[int, int]:
    """Bytes that the run compared, and copied."""
    both.start_primary()
    both.wait()
    status = both.status()
    assert status is not None and status["taints"] == [], status
    both.compare(when)
    return status["statistics"]["compared_bytes"], status["statistics"]["copied_bytes"]


def test_a_clean_reboot_compares_what_was_written_since_the_arming_and_not_a_block_more(both, tmp_path, chance):
    with mounted(both.source, tmp_path / "mnt") as folder:  # at the shutdown, after the controller has ended
        (folder / "late").write_bytes(chance.randbytes(200_000))
        ask(both, "disarm").refused(4, "is in use", str(folder), "unmount it first")
    late = out_of_sync_bytes(both)
    assert late > 200_000
    assert "is disarmed: the next run copies what is out of sync" in done(both, "disarm")
    assert "nothing to do" in done(both, "disarm")
    reboot(both)
    assert "is armed: every write is tracked" in done(both, "arm")
    assert "nothing to do" in done(both, "arm")
    write(both, 9001, 9002, 12345)
    assert tracked_blocks(both) == 3
    ask(both, "status").refused(9, "armed since", "every write is tracked", "last known state: armed, replica outdated")
    status = json.loads(command("status", both.source.path, "--state", both.primary_state, "--json").output)
    assert (status["mode"], status["tainted"], status["armed"]["broken"]) == ("armed", False, "")
    assert status["out_of_sync_bytes"] == late + 3 * BLOCK
    compared, copied = run_and_compare(both, "after a clean reboot")
    assert compared == late + 3 * BLOCK and 3 * BLOCK <= copied <= compared


@pytest.mark.variant
def test_a_mount_behind_the_arming_breaks_nothing_and_one_before_it_is_named(both, tmp_path, chance):
    done(both, "disarm")
    reboot(both)
    done(both, "arm")
    with mounted(both.source, tmp_path / "mnt") as folder:
        (folder / "file").write_bytes(chance.randbytes(100_000))
        os.sync()
    written = out_of_sync_bytes(both)
    assert "it was armed, and no controller was running" in done(both, "down")
    assert state_of(both).clean is not None
    reboot(both)
    done(both, "arm")
    both.start_primary()
    both.wait()
    status = both.status()
    assert status["statistics"]["compared_bytes"] == written and status["taints"] == []
    assert state_of(both).more.get("armed") is None
    both.primary.terminate()
    done(both, "disarm")
    reboot(both)
    with mounted(both.source, tmp_path / "mnt") as folder:  # by hand, with nobody there to see it
        (folder / "file").write_bytes(chance.randbytes(100_000))
    assert "written after the closing record: mounted" in done(both, "arm")
    ask(both, "status").refused(9, "armed since", "TAINTED", "written after the closing record", "unknown amount")
    compared, _ = run_and_compare(both, "after a mount that nobody saw")
    assert compared > SIZE // 2


@pytest.mark.parametrize(
    ("link", "words"),
    short(
        1,
        ("no record", "was booted since programs tracked it, and no closing record was written"),
        ("programs gone", "were taken out of the kernel"),
        ("other programs", "not those that were armed"),
        ("in use", "in use already"),
    ),
)
def test_each_link_that_is_missing_is_named_by_the_status_and_everything_is_compared(both, tmp_path, link, words):
    if link != "no record":
        done(both, "disarm")
    reboot(both)
    if link == "in use":
        with mounted(both.source, tmp_path / "mnt"):
            assert words in done(both, "arm")
    elif link == "no record":
        assert words in done(both, "arm")
    else:
        done(both, "arm")
        state = state_of(both)
        if link == "programs gone":
            Capture.remove_pins(pin_dir_of(state))
        else:
            other = {**state.more["armed"], "attachment": f"{state.boot_id} 1"}
            save_state(both.primary_state, replace(state, more={**state.more, "armed": other}))
    write(both, 12345)
    ask(both, "status").refused(9, words, "an unknown amount out of sync")
    compared, _ = run_and_compare(both, f"after a broken link: {link}")
    assert compared > SIZE // 2
    assert words in both.primary.words()


@pytest.mark.variant
def test_an_arming_that_is_killed_at_any_moment_is_made_whole_by_the_next(both, chance):
    done(both, "disarm")
    reboot(both)
    begun = time.monotonic()
    done(both, "arm")
    lasts_s = time.monotonic() - begun
    done(both, "disarm")
    for _ in range(4):
        reboot(both)
        words = [*PROGRAM, "arm", str(both.source.path), "--state", str(both.primary_state)]
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        time.sleep(chance.uniform(0.3, 1) * lasts_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert "every write" in done(both, "arm"), "the closing record is still there, or it is armed"
        done(both, "disarm")
    reboot(both)
    done(both, "arm")
    write(both, 777)
    expected = out_of_sync_bytes(both)
    compared, copied = run_and_compare(both, "after kills of the arming")
    assert (compared, copied) == (expected, BLOCK) and expected < SIZE // 16
