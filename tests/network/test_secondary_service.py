"""The whole secondary over real sockets and files: its promises to a primary and to an operator."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash

from pydbt.controller.control import call
from pydbt.controller.secondary.connections import MAX_STRANGERS
from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol.frame_checks import REPLICA_STATE_NAMES
from pydbt.core.protocol.frames import (
    Begin,
    Blocks,
    Bye,
    Commit,
    Digests,
    Hello,
    Ping,
    Pong,
    Refuse,
    Stream,
    Want,
)
from pydbt.core.protocol.wire import FRAME_HEADER_BYTES, encode
from pydbt.core.secondary.journal import RECORD_HEADER_BYTES
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from tests.lab.collisions import colliding_blocks
from tests.lab.images import decaying
from tests.lab.patience import until
from tests.network.scripted import (
    BLOCK,
    EPOCH,
    ScriptedPrimary,
    SecondaryProcess,
    blocks_frame,
    stream_frame,
)

SIZE = 8 << 20


def block(fill: str) -> bytes:
    return fill.encode() * BLOCK


def image(secondary: SecondaryProcess, count: int = 8) -> str:
    """First byte of each of the first blocks, '.' for zero."""
    data = secondary.target.read_bytes()
    return "".join(chr(data[n * BLOCK] or ord(".")) for n in range(count))


def state(primary: ScriptedPrimary) -> str:
    return REPLICA_STATE_NAMES[primary.ack.replica_state]


@pytest.fixture
def secondary(tmp_path):
    with SecondaryProcess(tmp_path, SIZE) as running:
        yield running


@pytest.fixture
def primary(secondary):
    with ScriptedPrimary(secondary.port, SIZE) as connected:
        yield connected


def test_a_fresh_target_is_inconsistent_until_its_first_commit_and_then_up_to_date(secondary, primary):
    assert primary.welcome.volume is None and primary.welcome.fresh
    primary.send(Begin(1, EPOCH, SIZE), blocks_frame(1, {0: block("a"), 3: block("b")}))
    primary.until(lambda: primary.ack.batch == 1, "the batch is durable")
    assert state(primary) == "inconsistent"
    primary.send(Commit(1, 100))
    primary.until(lambda: primary.ack.resync_committed == 1, "the commit is durable")
    assert (state(primary), primary.ack.sequence) == ("up-to-date", 100)
    assert image(secondary) == "a..b...."


def test_the_stream_is_applied_in_order_and_repeated_updates_do_no_harm(secondary, primary):
    primary.synchronize([], 10)
    primary.send(stream_frame(11, [(0, block("a")), (1, block("b"))]))
    primary.send(stream_frame(11, [(0, block("a")), (1, block("b"))]))
    primary.send(stream_frame(12, [(1, block("b")), (0, block("c"))]))
    primary.until(lambda: primary.ack.sequence == 13, "all is acknowledged")
    primary.close()
    assert secondary.stop() == 0
    assert image(secondary) == "cb......"


def test_zeroes_and_discards_read_as_zeros_and_take_no_room(secondary, primary):
    whole = SectorTable.of([0], [SIZE // 512])
    primary.synchronize([Blocks(1, whole, (b"x" * SIZE,))], 1)
    holes = SectorTable.of([8, 4096], [8, 8192], [2, 3], [0, 1])
    primary.send(Stream(2, 3, holes))
    primary.until(lambda: primary.ack.sequence == 3, "all is acknowledged")
    primary.close()
    secondary.stop()
    expected = bytearray(b"x" * SIZE)
    expected[4096:8192] = bytes(4096)
    expected[4096 * 512 : 12288 * 512] = bytes(8192 * 512)
    assert secondary.target.read_bytes() == bytes(expected)
    assert os.stat(secondary.target).st_blocks * 512 <= SIZE - (4 << 20) + (1 << 16)


def test_during_a_resync_the_last_consistent_image_stays_until_the_commit(secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a"), 1: block("a")})], 10)
    primary.send(Begin(2, EPOCH, 1 << 20), blocks_frame(2, {0: block("b")}), stream_frame(20, [(1, block("c"))]))
    primary.until(lambda: primary.ack.batch == 2, "the batch is durable")
    assert state(primary) == "outdated"
    assert primary.ack.staged_bytes > 0 and primary.ack.sequence == 10
    secondary.kill()
    assert secondary.replay().startswith("outdated at sequence 10")
    assert image(secondary) == "aa......"

    secondary.start()  # the stage was kept: the next resync goes on with it
    with ScriptedPrimary(secondary.port, SIZE) as again:
        assert again.welcome.staged and again.welcome.sequence == 10
        again.synchronize([blocks_frame(1, {1: block("d")})], 30, resync=3)
        assert state(again) == "up-to-date"
    secondary.stop()
    assert image(secondary) == "bd......"


@pytest.mark.parametrize("reason", ["switched off", "no room"])
def test_without_room_for_a_stage_the_replica_reports_inconsistent_first(tmp_path, reason):
    with SecondaryProcess(tmp_path, SIZE, stage=reason != "switched off") as secondary:
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
        primary.send(Begin(2, EPOCH, 1 << 60), blocks_frame(2, {0: block("b")}))
        primary.until(lambda: primary.ack.batch == 2, "the batch is durable")
        assert state(primary) == "inconsistent"
        secondary.kill()
        assert secondary.replay().startswith("inconsistent")
        assert image(secondary) == "b......."
        secondary.start()
        with ScriptedPrimary(secondary.port, SIZE) as again:
            assert again.welcome.state == "inconsistent" and again.welcome.volume is not None
            again.synchronize([], 20, resync=3, planned=1 << 60)
            assert state(again) == "up-to-date"


def test_digests_are_answered_with_the_blocks_that_differ(secondary, primary):
    primary.synchronize([blocks_frame(1, {n: block("abcdefgh"[n]) for n in range(8)})], 1)
    primary.send(stream_frame(2, [(5, block("x"))]), Begin(2, EPOCH, 1 << 20))
    primary.send(blocks_frame(2, {7: block("y")}))
    ours = [block(c) for c in "abXdefgh"]
    digests = b"".join(primary.digest.of(data) for data in ours)
    primary.send(Digests(3, Runs(np.array([0]), np.array([8])), digests))
    want = primary.hear(Want)
    # 2 differs, 5 was changed by the stream, and 7 is newer in the stage than on the target.
    assert want == Want(3, Runs(np.array([2, 5, 7]), np.array([1, 1, 1])))
    primary.until(lambda: primary.ack.batch == 3, "the digests are acknowledged")


def test_blocks_that_were_made_to_have_one_digest_are_found_to_differ(secondary, primary):
    """They have one xxh3_128, by which blocks were compared before: what a user of the volume prepared stayed different."""
    theirs, ours = zip(*(colliding_blocks(block(c)) for c in "abcd"), strict=True)
    primary.synchronize([blocks_frame(1, dict(enumerate(theirs)))], 1)
    primary.send(Begin(2, EPOCH, 1 << 20))
    primary.send(Digests(2, Runs(np.array([0]), np.array([4])), b"".join(map(primary.digest.of, ours))))
    assert primary.hear(Want) == Want(2, Runs(np.array([0]), np.array([4])))


def test_each_connection_has_a_key_of_its_own(secondary):
    keys = {ScriptedPrimary(secondary.port, SIZE).welcome.digest_key for _ in range(3)}
    assert len(keys) == 3 and None not in keys


def test_a_primary_of_an_earlier_version_is_asked_for_everything_that_it_would_compare(secondary, primary):
    """It makes digests without a key, and those prove nothing."""
    primary.synchronize([blocks_frame(1, {n: block("ab"[n]) for n in range(2)})], 1)
    primary.close()
    with ScriptedPrimary(secondary.port, SIZE, features=("progress",)) as older:
        assert older.welcome.digest_key is None
        older.send(Begin(2, EPOCH, 1 << 20))
        digests = b"".join(xxhash.xxh3_128_digest(block(c)) for c in "ab")
        older.send(Digests(1, Runs(np.array([0]), np.array([2])), digests))
        assert older.hear(Want) == Want(1, Runs(np.array([0]), np.array([2])))


def test_the_short_last_block_of_a_volume_is_compared_as_it_is(tmp_path):
    size = SIZE + 512
    with SecondaryProcess(tmp_path, SIZE * 2) as secondary, ScriptedPrimary(secondary.port, size) as primary:
        primary.send(Begin(1, EPOCH, size), Blocks(1, SectorTable.of([SIZE // 512], [1]), (b"z" * 512,)))
        primary.send(Digests(2, Runs(np.array([SIZE // BLOCK]), np.array([1])), primary.digest.of(b"z" * 512)))
        assert primary.hear(Want) == Want(2, Runs.none())


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"volume": "b2" * 16}, "other-volume"), ({"size": SIZE * 2}, "too-small"), ({"size": SIZE // 2}, "resized"),
     ({"block": 512}, "block-size")],
)  # fmt: skip
def test_another_volume_is_refused_by_its_code_alone_over_plain_tcp_and_nothing_is_written(
    secondary, primary, changes, code
):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
    primary.close()
    before = secondary.target.read_bytes()
    size = changes.pop("size", SIZE)
    with ScriptedPrimary(secondary.port, size, **changes) as other:
        assert isinstance(other.answer, Refuse) and other.answer.code == code
        assert other.answer.message == "", "a stranger learns nothing of what it would need"
        assert other.connection.recv_frame() is None
    assert secondary.target.read_bytes() == before
    until(lambda: "turned away" in secondary.words(), "the refusal is told")
    (line,) = [line for line in secondary.words().splitlines() if "turned away" in line]
    assert len(line) > 60, "its operator is told why"


def test_a_volume_larger_than_the_target_is_refused_from_the_start(secondary):
    with ScriptedPrimary(secondary.port, SIZE + 512) as primary:
        assert primary.answer.code == "too-small"


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([stream_frame(1, [(0, block("a"))])], "before a BEGIN"),
        ([blocks_frame(1, {0: block("a")})], "outside of a resync"),
        ([Commit(1, 1)], "belongs to no BEGIN"),
        ([Begin(1, EPOCH, 1), Commit(2, 1)], "belongs to no BEGIN"),
        ([Begin(1, EPOCH, 1), blocks_frame(1, {SIZE // BLOCK: block("a")})], "past the end"),
        ([Begin(1, EPOCH, 1), stream_frame(5, [(0, block("a"))]), stream_frame(7, [(0, block("a"))])], "came after"),
        ([Begin(1, EPOCH, 1), stream_frame(5, [(0, block("a"))]), Commit(1, 6)], "after a stream up to"),
        ([Begin(1, EPOCH, 1), blocks_frame(2, {}), blocks_frame(2, {})], "not above"),
        ([Pong(1)], "not for a secondary"),
    ],
)
def test_a_primary_that_breaks_the_protocol_gets_the_reason_and_is_disconnected(secondary, primary, frames, words):
    primary.send(*frames)
    assert words in primary.hear(Refuse).message
    assert REPLICA_STATE_NAMES[primary.ack.replica_state] != "up-to-date"


def test_a_primary_that_connects_again_replaces_its_dead_connection(secondary, primary):
    primary.synchronize([], 1)
    with ScriptedPrimary(secondary.port, SIZE) as again:
        assert again.welcome.sequence == 1
        again.send(stream_frame(2, [(0, block("n"))]))
        again.until(lambda: again.ack.sequence == 2, "the new one is served")
    assert primary.connection.recv_frame() is None


def test_strangers_are_turned_away_with_one_line_for_each_reason_and_primaries_still_served(secondary):
    for words in (b"GET / HTTP/1.1\r\n\r\n" + bytes(100), b"\0" * 48, os.urandom(4000), b"PDBT"):
        # The door may be shut before all of it was said.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", secondary.port)) as stranger:
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        primary.send(Ping(5))
        assert primary.hear(Pong) == Pong(5)
    reasons = [line.rpartition("no primary: ")[2] for line in secondary.words().splitlines() if "turned away" in line]
    assert 1 <= len(reasons) == len(set(reasons)) <= 2, "what is no frame, and the frame that ends too early"


def refused(secondary: SecondaryProcess) -> FramedConnection:
    """A connection whose HELLO is well-formed, and is that of another volume."""
    connection = FramedConnection(connect("127.0.0.1", secondary.port))
    connection.send_frames([Hello("b2" * 16, SIZE, BLOCK, EPOCH)])
    answer = connection.recv_frame()
    assert isinstance(answer, Refuse) and answer.code == "other-volume"
    return connection


def begin_a_large_frame(connection: FramedConnection) -> None:
    """The header, and one byte of 8 MiB."""
    frame = Blocks(1, SectorTable.of([0], [SIZE // 512]), (b"x" * SIZE,))
    head = b"".join(bytes(part) for part in encode(frame, 1))[: FRAME_HEADER_BYTES + 1]
    with contextlib.suppress(OSError):  # cut already
        connection.socket.sendmsg([memoryview(head)])


def test_a_refused_connection_is_cut_although_it_goes_on_sending(secondary, primary):
    primary.synchronize([], 1)
    connection = refused(secondary)

    def is_cut() -> bool:
        try:
            return not connection.socket.sendmsg([memoryview(b"x")])
        except OSError:
            return True

    until(is_cut, "it is cut")


def test_refused_strangers_hold_no_memory_few_threads_and_no_primary_up(secondary, primary):
    primary.synchronize([], 1)
    tasks = f"/proc/{secondary.process.pid}/task"
    before = len(os.listdir(tasks))
    crowd, began = [], time.monotonic()
    for number in range(5 * MAX_STRANGERS):
        primary.send(Ping(number))  # one that is silent for long is cut, and a loaded machine takes long
        crowd.append(refused(secondary))
        begin_a_large_frame(crowd[-1])
    # A thread and a timer for each that is not cut yet.
    until(lambda: len(os.listdir(tasks)) <= before + 2 * MAX_STRANGERS, "the crowd is bounded")
    for first in range(2, 22):
        primary.send(stream_frame(first, [(0, bytes(256 * BLOCK))]))
    primary.until(lambda: primary.ack.sequence == 21, "the primary is served meanwhile")
    with ScriptedPrimary(secondary.port, SIZE) as again:
        assert again.welcome.sequence == 21
    reasons = [
        line.rpartition("no primary: ")[2][:30] for line in secondary.words().splitlines() if "turned away" in line
    ]
    minutes = 1 + int((time.monotonic() - began) // 60)
    assert len(set(reasons)) <= 2, "another volume, and data before a WELCOME"
    assert len(reasons) <= minutes * len(set(reasons)), "one line a minute for each"
    for connection in crowd:
        connection.close()


def test_the_status_is_served_over_the_control_socket_and_down_stops_it(secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
    status = call(secondary.state, {"command": "status"})
    assert status["role"] == "secondary" and status["replica_state"] == "up-to-date" and status["sequence"] == 10
    assert status["connected"] is True and status["size"] == SIZE and status["target"] == str(secondary.target)
    assert {"mode", "staged_bytes", "journal"} <= status.keys()
    primary.close()
    until(lambda: call(secondary.state, {"command": "status"})["connected"] is False, "the loss is noticed")
    assert call(secondary.state, {"command": "status"})["replica_state"] == "consistent"
    call(secondary.state, {"command": "down"})
    assert secondary.process.wait(20) == 0


def ended(secondary: SecondaryProcess, **changes: object) -> tuple[int, str]:
    """Exit code and words of a secondary that does not come up."""
    with pytest.raises(AssertionError, match="the secondary ended"):
        secondary.start(**changes)
    return secondary.process.wait(20), secondary.words()


def test_a_target_state_or_port_in_use_is_refused_with_exit_code_4(tmp_path, secondary):
    (tmp_path / "other").mkdir()
    assert ended(SecondaryProcess(tmp_path / "other", SIZE, state_dir=secondary.state))[0] == 4
    code, words = ended(SecondaryProcess(tmp_path / "other", SIZE, target=secondary.target))
    assert code == 4 and "in use" in words
    code, words = ended(SecondaryProcess(tmp_path / "other", SIZE, listen_port=secondary.port))
    assert code == 4 and "port" in words


def test_plain_tcp_needs_insecure_on_loopback_too(tmp_path):
    code, words = ended(SecondaryProcess(tmp_path, SIZE, insecure=False))
    assert code == 2 and "--insecure" in words
    assert not (tmp_path / "target.img").exists()


def test_a_damaged_state_file_is_named_and_nothing_is_touched(tmp_path, secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
    primary.close()
    secondary.stop()
    path = secondary.state / "replica.json"
    path.write_bytes(path.read_bytes()[:-7])
    code, words = ended(secondary)
    assert code == 7 and "replica.json" in words and "Traceback" not in words
    assert image(secondary, 1) == "a"


def test_another_target_is_not_taken_for_the_one_the_state_describes(tmp_path, secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
    primary.close()
    secondary.stop()
    secondary.target.rename(tmp_path / "moved")
    code, words = ended(secondary)
    assert code == 7 and "is gone" in words
    secondary.target.write_bytes(bytes(SIZE))
    code, words = ended(secondary)
    assert code == 7 and "another target" in words


@pytest.fixture
def small_disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_state_stops_replication_with_one_sentence_and_room_heals_it(tmp_path, small_disk):
    with SecondaryProcess(tmp_path, SIZE, state_dir=small_disk / "state") as secondary:
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([], 1)
        filler = small_disk / "filler"
        fill(filler)
        primary.send(stream_frame(2, [(0, block("a"))]))
        refusal = primary.hear(Refuse)
        assert refusal.code == "disk-full" and "no room" in refusal.message and "\n" not in refusal.message
        assert primary.ack.sequence == 1, "what is not durable is not acknowledged"
        with ScriptedPrimary(secondary.port, SIZE) as again:  # still up, and still full
            assert again.welcome.sequence == 1 and again.welcome.state == "consistent"
            again.send(stream_frame(2, [(0, block("b"))]))
            assert again.hear(Refuse).code == "disk-full"
        filler.unlink()
        with ScriptedPrimary(secondary.port, SIZE) as again:
            assert again.welcome.sequence == 1
            again.send(stream_frame(2, [(1, block("c"))]))
            again.until(lambda: again.ack.sequence == 2, "there is room again")
        assert secondary.stop() == 0
        assert image(secondary) == ".c......"


def test_a_stage_that_outgrows_the_disk_goes_to_the_target_and_reports_inconsistent_before(tmp_path, small_disk):
    size = 256 << 20
    with SecondaryProcess(tmp_path, size, state_dir=small_disk / "state") as secondary:
        primary = ScriptedPrimary(secondary.port, size)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        primary.send(Begin(2, EPOCH, 1 << 20))  # it turns out to be far more than was planned
        heard = set()
        for batch in range(2, 34):
            table = SectorTable.of([(batch - 2) * (8 << 20) // 512], [(8 << 20) // 512])
            primary.send(Blocks(batch, table, (bytes([batch]) * (8 << 20),)))
            primary.until(lambda batch=batch: primary.ack.batch == batch, "the batch is durable")
            heard.add(state(primary))
        assert heard == {"outdated", "inconsistent"}
        primary.send(Commit(2, 50), stream_frame(51, [(0, block("z"))]))
        primary.until(lambda: primary.ack.sequence == 51, "the stream goes on")
        assert state(primary) == "up-to-date"
        primary.close()
        secondary.stop()
        data = secondary.target.read_bytes()
        assert data[:BLOCK] == block("z")
        assert all(data[n * (8 << 20) + BLOCK :][: (8 << 20) - BLOCK] == bytes([n + 2]) * ((8 << 20) - BLOCK)
                   for n in range(32))  # fmt: skip


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def damage_last_record(folder: Path) -> None:
    """Change a byte in the body of the last record that a secondary has acknowledged."""
    segment = min(folder.glob("*.journal"))
    data = bytearray(segment.read_bytes())
    last = data.rindex(b"PDJR")
    data[last + RECORD_HEADER_BYTES + 100] ^= 1
    segment.write_bytes(data)


@pytest.mark.parametrize("what", ["a stage", "the stream"])
def test_a_journal_that_lost_acknowledged_records_is_reported_and_no_earlier_map_is_used_with_it(
    secondary, primary, what
):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
    if what == "a stage":
        primary.send(Begin(2, EPOCH, 1 << 20), blocks_frame(2, {1: block("b")}), blocks_frame(3, {2: block("c")}))
        primary.until(lambda: primary.ack.batch == 3, "both batches are durable")
    else:
        primary.send(stream_frame(11, [(1, block("b"))]), stream_frame(12, [(2, block("c"))]))
        primary.until(lambda: primary.ack.sequence == 12, "the stream is durable")
    secondary.kill()
    damage_last_record(secondary.state / "journal")
    secondary.start()
    with ScriptedPrimary(secondary.port, SIZE) as again:
        assert again.welcome.replica != primary.welcome.replica, "a primary would trust the map that it kept for it"
        assert again.welcome.state == "inconsistent", "of what is lost, a part may be on the target"
    assert "the journal is damaged" in secondary.words()
    secondary.kill()
    secondary.start()
    with ScriptedPrimary(secondary.port, SIZE) as later:
        assert later.welcome.replica == again.welcome.replica, "it is said once"


def test_a_missing_journal_is_reported(secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
    primary.send(Begin(2, EPOCH, 1 << 20), blocks_frame(2, {1: block("b")}))
    primary.until(lambda: primary.ack.batch == 2, "the batch is durable")
    secondary.kill()
    shutil.rmtree(secondary.state / "journal")
    secondary.start()
    with ScriptedPrimary(secondary.port, SIZE) as again:
        assert again.welcome.replica != primary.welcome.replica
    assert "the journal is damaged" in secondary.words()


def test_a_torn_file_with_the_durable_position_is_refused_by_name(secondary, primary):
    primary.synchronize([], 10)
    secondary.kill()
    (secondary.state / "reached").write_bytes(b"PDREACH\0torn")
    with pytest.raises(AssertionError, match=r"reached is not whole"):
        secondary.start()


def test_an_image_whose_journal_is_damaged_is_not_promoted(secondary, primary):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
    primary.send(stream_frame(11, [(1, block("b"))]), stream_frame(12, [(2, block("c"))]))
    primary.until(lambda: primary.ack.applied_sequence == 12, "the stream is on the target")
    secondary.kill()
    damage_last_record(secondary.state / "journal")
    with pytest.raises(AssertionError, match="its journal is damaged: it cannot be promoted"):
        secondary.replay(promote=True)


def test_a_journal_that_was_replayed_to_a_copy_is_not_taken_for_one_that_is_on_the_image(secondary, primary, tmp_path):
    primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
    copy, before = tmp_path / "copy", secondary.target.read_bytes()
    copy.write_bytes(before)
    primary.send(stream_frame(11, [(1, block("b"))]))
    primary.until(lambda: primary.ack.sequence == 11, "it is durable in the journal")
    secondary.kill()
    with decaying(secondary.target), secondary.target.open("r+b") as file:
        file.write(before)  # as after a power loss
    with pytest.raises(AssertionError, match="belongs to another target"):
        secondary.replay(target=copy, promote=True)
    assert copy.read_bytes() == before
    assert secondary.replay(target=copy).startswith("consistent at sequence 11")
    assert copy.read_bytes()[BLOCK] == ord("b")
    with pytest.raises(AssertionError, match="belongs to another target"):
        secondary.start()
    assert secondary.replay(target=copy).startswith("consistent at sequence 11")


def test_the_log_has_the_primary_s_coming_and_going_and_a_loss_is_a_warning(secondary):
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        primary.send(Bye("stopped"))
        until(lambda: "said goodbye: stopped" in secondary.words(), "the goodbye is told")
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        until(lambda: secondary.words().count("is connected") == 2, "it is taken in")
        primary.close()
        until(lambda: "is gone" in secondary.words(), "the loss is told")
    lines = [line for line in secondary.words().splitlines() if "the primary 127.0.0.1:" in line]
    assert [line.split()[0] for line in lines] == ["INFO", "INFO", "INFO", "WARNING"], lines
    assert "is connected; a new replica" in lines[0]


def test_a_secondary_that_ends_warns_of_no_lost_primary(secondary):
    with ScriptedPrimary(secondary.port, SIZE):
        until(lambda: "is connected" in secondary.words(), "it is taken in")
        assert secondary.stop() == 0
    (line,) = [line for line in secondary.words().splitlines() if "is let go, because this secondary ends" in line]
    assert line.split()[0] == "INFO" and "is gone" not in secondary.words()
