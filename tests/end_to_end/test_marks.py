"""Marks: a name for one place in the order of writes, held on both sides; and the journal has what a history of them needs."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.blocks.apply_plan import ZEROS, plan, sources_of
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.stream_times import StreamTimes
from pydbt.core.secondary.journal import (
    RECORD_HEADER_BYTES,
    JournalRecordKind,
    RecordHeader,
    decode_record_header,
    record_extents,
    record_is_whole,
)
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.patience import until
from tests.lab.programs import Outcome, command

MIB = 1 << 20
SIZE = 64 * MIB


def mark(device: Device, name: str, *options: str) -> Outcome:
    return command("mark", device.path, name, *options, timeout_s=120)


def start(both: Cluster) -> None:
    both.start()
    both.wait()


def names(status: dict | None) -> list[str]:
    return [one["name"] for one in (status or {})["marks"]]


def test_a_mark_is_held_on_both_sides_and_outlives_a_kill_of_everything(tmp_path: Path) -> None:
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                (folder / "before").write_bytes(b"in the page cache alone" * 1000)
                done = mark(device, "before migration 14")
                assert done.code == 0 and f"is held by {both.address}" in done.output, done
                (folder / "after").write_bytes(b"x" * 5000)
                done = mark(device, "no sync", "--no-sync")
                assert done.code == 0, done
                assert '"no sync"' in (both.primary_state / "volume.json").read_text(), (
                    "the next run knows it, whatever comes"
                )
                for status in (both.status(), both.secondary_status()):
                    assert names(status) == ["no sync", "before migration 14"]
                    assert [one["synced"] for one in (status or {})["marks"]] == [False, True]
                assert (both.status() or {})["marks"][0]["held_by"] == [both.address]
                numbers = [one["number"] for one in (both.status() or {})["marks"]]
                assert numbers == [one["number"] for one in (both.secondary_status() or {})["marks"]]
                assert "before migration 14" in command("status", device.path).output
                assert command("wait", device.path, "--mark", "no sync", "--timeout", "60").code == 0
                command("wait", device.path, "--mark", "nosuch").refused(2, "no mark of this name")
                command("mark", device.path, " spaces ").refused(2, "printable characters")
                both.secondary.kill()
                both.primary.kill()
                outcome = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
                assert outcome.code == 0 and 'the last mark that it holds is "no sync"' in outcome.output, outcome
            with mounted(both.target, tmp_path / "look") as folder:
                assert (folder / "before").read_bytes() == b"in the page cache alone" * 1000


@pytest.mark.variant
def test_outside_of_mode_normal_there_is_no_order_to_mark_and_it_can_be_waited_for(tmp_path: Path) -> None:
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        start(both)
        assert command("pause", device.path).code == 0
        refused = mark(device, "paused")
        refused.refused(4, "no mark was set", "mode paused", "--wait")
        assert names(both.status()) == []
        found: list[Outcome] = []
        waiting = threading.Thread(target=lambda: found.append(mark(device, "later", "--wait")))
        waiting.start()
        assert command("resume", device.path).code == 0
        waiting.join(120)
        assert found and found[0].code == 0, found
        assert names(both.status()) == names(both.secondary_status()) == ["later"]
        both.primary.terminate()
        both.start_primary()
        until(lambda: names(both.status()) == ["later"], "the next run knows it")
        assert command("wait", device.path, "--mark", "later", "--timeout", "60").code == 0


def records(state: Path) -> Iterator[tuple[RecordHeader, memoryview]]:
    """Everything that was ever journalled, from the segments: they are not used again so soon."""
    for path in sorted((state / "journal").iterdir()):
        data, start = memoryview(path.read_bytes()), int(path.name.split(".")[0], 16)
        offset = 0
        while header := decode_record_header(data[offset:], start + offset, len(data) - offset, (0, 1 << 60)):
            length = 0 if header.kind is JournalRecordKind.PAD else header.length
            body = data[offset + RECORD_HEADER_BYTES :][:length]
            assert record_is_whole(header, body)
            yield header, body
            offset = header.end - start


def test_the_journal_has_what_the_volume_was_at_each_mark_when_it_was_written_and_its_transactions(
    tmp_path: Path, chance: random.Random
) -> None:
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            start(both)
            until(lambda: (both.secondary_status() or {})["unapplied_bytes"] == 0, "the journal is applied")
            image, copies = bytearray(both.target.read_bytes()), {}
            begun = (both.secondary_status() or {})["sequence"]
            with mounted(device, tmp_path / "mnt") as folder:
                for number in range(3):
                    for file in range(20):
                        descriptor = os.open(folder / f"file{file}", os.O_CREAT | os.O_WRONLY)
                        os.write(descriptor, chance.randbytes(chance.randrange(1, 30_000)))
                        os.fsync(descriptor)
                        os.close(descriptor)
                    content = copy_behind_a_mark(device, both, f"mark {number}")
                    copies[(both.secondary_status() or {})["marks"][0]["name"]] = content
            both.wait()
            found, times, transactions, compared = [], [], [], 0
            for header, body in records(both.secondary_state):
                if header.first <= begun or header.kind in (JournalRecordKind.BEGIN, JournalRecordKind.COMMIT):
                    continue
                match header.kind:
                    case JournalRecordKind.STREAM:
                        assert header.timed
                        extents, payload = record_extents(header, body)
                        block = body[header.extent_count * 16 : len(body) - len(payload)]
                        times.append(StreamTimes.from_bytes(block))
                        lay(image, extents, payload)
                    case JournalRecordKind.MARK:
                        named = NamedMark.from_bytes(body)
                        found.append(named.name)
                        assert named.synced and not named.partly
                        if named.name in copies and not named.uncertain_bytes:
                            compared += 1
                            assert bytes(image) == copies[named.name], f"the image behind {named.name}"
                    case JournalRecordKind.COMPLETED:
                        told = Completed.from_bytes(body)
                        transactions += told.rows["number"].tolist()
            assert [name for name in found if name in copies] == list(copies) and compared
            stamps = [one for each in times for one in each.submitted_ns.tolist()]
            assert stamps and all(stamps) and max(b - a for a, b in zip(stamps[1:], stamps, strict=False)) < 1e9
            assert len(transactions) >= 60 and transactions == list(
                range(transactions[0], transactions[0] + len(transactions))
            )
            both.compare("after three marks")


def copy_behind_a_mark(device: Device, both: Cluster, name: str) -> bytes:
    """The content of the file behind the loop device while nothing is written behind the mark, which is set anew otherwise."""
    for number in range(20):
        assert mark(device, f"{name}, try {number}").code == 0
        written = device.statistics()["writes"]
        content = backing_file(device).read_bytes()
        if device.statistics()["writes"] == written and (both.status() or {})["sequence"][
            "submitted"
        ] == sequence_of_last(both):
            return content
    raise AssertionError("the volume is never at rest")


def sequence_of_last(both: Cluster) -> int:
    return int((both.secondary_status() or {})["marks"][0]["sequence"])


def backing_file(device: Device) -> Path:
    return Path(Path(f"/sys/block/{device.path.name}/loop/backing_file").read_text().strip())


def lay(image: bytearray, extents: object, payload: memoryview) -> None:
    for runs in plan(extents, sources_of(extents, 0)):
        rows = zip(runs.sectors.tolist(), runs.lengths_sectors.tolist(), runs.sources.tolist(), strict=True)
        for sector, count, source in rows:
            data = bytes(count * 512) if source == ZEROS else payload[source : source + count * 512]
            image[sector * 512 : (sector + count) * 512] = data
