"""Verification while writes go on: it finds exactly the blocks that were corrupted, and reports no false difference."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from tests.lab.rounds import short
from tests.simulation.test_primary_brain import CALM, ODD_DISK, ROUGH, TINY_RING, run, settle
from tests.simulation.world import Cluster, Faults

WORLDS = pytest.mark.parametrize(
    "faults", [CALM, ROUGH, TINY_RING, ODD_DISK], ids=["calm", "rough", "tiny-ring", "odd-disk"]
)


def verify(cluster: Cluster, repair: bool) -> None:
    everything = Runs(np.array([0]), np.array([cluster.kernel.blocks]))
    cluster.feed(ev.VerifyAsked(everything, repair, answers=cluster.brain.state.taint_numbers))


def until_verified(cluster: Cluster) -> ev.VerifyEnded:
    for _ in range(4000):
        if cluster.verified:
            return cluster.verified[-1]
        cluster.step(0.05)
    raise AssertionError("the verification never ended:\n" + "\n".join(cluster.log[-20:]))


def in_sync(seed: int, faults) -> Cluster:
    cluster = Cluster(seed, faults)
    if faults is ODD_DISK:
        cluster.odd = set(range(cluster.kernel.blocks))
    run(cluster, 60, rate=3)
    settle(cluster)
    cluster.brain.state.left_out.blocks.clear()  # as after a first verification
    return cluster


def corrupt(cluster: Cluster, count: int) -> set[int]:
    blocks = set(cluster.rng.sample(range(cluster.kernel.blocks // 2, cluster.kernel.blocks), count))
    for block in blocks:
        cluster.secondary.content[block] = -7_000_000 - block
    cluster.corrupted |= blocks
    return blocks


@pytest.mark.parametrize("seed", short(2, *range(4)))
@WORLDS
def test_to_a_secondary_that_compares_nothing_a_repair_copies_everything_and_answers_the_taint(seed, faults):
    cluster = in_sync(seed, faults)
    cluster.brain.state.replica.compares = False
    damaged = corrupt(cluster, 5)
    cluster.feed(ev.Tainted("somebody wrote unseen"))
    verify(cluster, repair=True)
    assert cluster.brain.mode is Mode.UNSYNCHRONIZED and cluster.brain.out_of_sync_bytes() > 0
    cluster.compares = False
    run(cluster, 100, rate=3)
    settle(cluster)
    assert not cluster.brain.state.taints and not cluster.verified
    assert not [block for block in damaged if cluster.secondary.content[block] < 0]


@pytest.mark.parametrize("seed", short(4, *range(12)))
@WORLDS
def test_a_verification_under_writes_and_outages_finds_no_false_difference(seed, faults):
    cluster = in_sync(seed, faults)
    verify(cluster, repair=False)
    run(cluster, 200, rate=3)
    settle(cluster)
    result = until_verified(cluster)
    assert result.differing_blocks == 0, result
    assert not cluster.brain.state.taints


@pytest.mark.parametrize("seed", short(4, *range(8)))
def test_blocks_that_are_written_again_and_again_while_they_are_compared_are_not_called_different(seed):
    cluster = Cluster(seed, Faults(delay=0.02), blocks=6)
    settle(cluster)
    for _ in range(4):
        verify(cluster, repair=False)
        for _ in range(4):
            cluster.feed(ev.Outbound(cluster.rng.choice((0, 1 << 30)), 0))  # at times the link takes nothing more
            run(cluster, 40, rate=6)
        cluster.feed(ev.Outbound(0, 0))
    settle(cluster)
    assert until_verified(cluster).differing_blocks == 0
    assert all(result.differing_blocks == 0 for result in cluster.verified)


@pytest.mark.parametrize("seed", short(4, *range(12)))
def test_a_verification_of_a_quiet_volume_finds_exactly_the_corrupted_blocks_and_they_are_settled(seed):
    cluster = in_sync(seed, CALM)
    blocks = corrupt(cluster, 5)
    cluster.check_prefix = lambda: None  # its history is broken, that is the point
    verify(cluster, repair=False)
    result = until_verified(cluster)
    found = {block for first, count in result.places for block in range(first, first + count)}
    assert found == blocks and result.differing_blocks == len(blocks)
    assert cluster.kernel.disk == cluster.secondary.content, "the end was told before what it found was settled"
    assert not cluster.brain.state.taints
    cluster.feed(ev.WaitAsked(1, cluster.kernel.produced))
    for _ in range(50):
        cluster.step(0.05)
    assert 1 in cluster.answered, "a wait hangs although nothing differs any more"


@pytest.mark.parametrize("seed", short(3, *range(6)))
@WORLDS
def test_free_space_that_was_never_copied_is_filled_in_and_never_called_different(seed, faults):
    cluster = in_sync(seed, faults)
    free = [block for block in range(cluster.kernel.blocks) if cluster.rng.random() < 0.5]
    free = [block for block in free if block not in cluster.kernel.dirty()]
    cluster.brain.state.left_out.add(Runs.of_blocks(np.array(free, np.int64)))
    for block in free[::2]:
        cluster.secondary.content[block] = -7_000_000 - block
        cluster.corrupted.add(block)
    cluster.check_prefix = lambda: None  # nobody reads what lies there
    verify(cluster, repair=False)
    run(cluster, 100, rate=3)
    settle(cluster)
    assert until_verified(cluster).differing_blocks == 0
    settle(cluster)
    assert cluster.kernel.disk == cluster.secondary.content
    assert not cluster.brain.state.taints and not cluster.brain.state.left_out.blocks.any()


# With odd-disk, seed 4 lands while the completion of a write after S0 was never shown, of which the disk kept another version.
@pytest.mark.parametrize("seed", short(4, *range(12)))
@WORLDS
def test_repair_under_writes_and_outages_leaves_both_sides_the_same_and_no_taint(seed, faults):
    cluster = in_sync(seed, faults)
    corrupt(cluster, 8)
    cluster.feed(ev.Tainted("something was not seen"))
    cluster.check_prefix = lambda: None  # its history is broken, that is the point
    verify(cluster, repair=True)
    run(cluster, 100, rate=3)
    settle(cluster)
    until_verified(cluster)
    settle(cluster)
    assert cluster.kernel.disk == cluster.secondary.content
    assert not cluster.brain.state.taints


@pytest.mark.parametrize("seed", short(4, *range(12)))
def test_neither_a_wait_nor_the_end_of_a_taint_comes_before_what_was_found_to_differ_is_repaired(seed):
    cluster = in_sync(seed, CALM)
    blocks = corrupt(cluster, 8)
    cluster.feed(ev.Tainted("something was not seen"))
    cluster.check_prefix = lambda: None  # its history is broken, that is the point
    verify(cluster, repair=True)
    same_at = None
    for step in range(2000):
        cluster.feed(ev.WaitAsked(step, cluster.kernel.produced))
        cluster.step(0.01)
        differs = any(cluster.secondary.content[block] != cluster.kernel.disk[block] for block in blocks)
        if not differs:
            same_at = step
        if cluster.verified or not cluster.brain.state.taints or cluster.answered:
            break
    assert same_at is not None and not differs, "called the same before it was"
    assert cluster.verified[-1].differing_blocks == len(blocks)


@pytest.mark.parametrize("seed", short(3, *range(6)))
@pytest.mark.parametrize("words", ["before", "during"], ids=["the same", "another one"])
def test_a_taint_that_comes_up_during_a_verification_is_not_answered_by_it(seed, words):
    cluster = in_sync(seed, CALM)
    cluster.feed(ev.Tainted("before"))
    verify(cluster, repair=True)
    cluster.feed(ev.Tainted(words))
    until_verified(cluster)
    assert list(cluster.brain.state.taints) == [words]
    cluster.verified.clear()
    verify(cluster, repair=True)
    until_verified(cluster)
    assert not cluster.brain.state.taints


def test_a_verification_that_is_cut_off_can_go_on_behind_everything_that_it_had_compared():
    cluster = in_sync(1, CALM)
    verify(cluster, repair=False)
    assert cluster.brain.verifier.resume_block() == 0
    until_verified(cluster)
    assert cluster.brain.verifier.progress() is None


@pytest.mark.parametrize("how", ["cancelled", "mode"])
def test_a_verification_that_is_cancelled_or_halted_leaves_no_batch_behind(how):
    cluster = in_sync(2, CALM)
    verify(cluster, repair=False)
    assert cluster.readings or cluster.heap
    if how == "cancelled":
        cluster.feed(ev.VerifyCancelled())
        assert cluster.brain.verifier.progress() is None
    else:
        cluster.lose()
        assert cluster.brain.mode is Mode.UNSYNCHRONIZED and cluster.brain.verifier.progress() is not None
        settle(cluster)
        until_verified(cluster)
    for _ in range(20):
        cluster.step(0.05)
    assert not set(cluster.readings) - set(cluster.brain.verifier._readings)


@pytest.mark.parametrize("seed", short(3, *range(6)))
def test_an_outage_during_a_verification_neither_repairs_what_differs_nor_answers_a_taint(seed):
    cluster = in_sync(seed, CALM)
    until = cluster.now + 10
    while cluster.kernel.dirty() or cluster.now < until:  # else what was just written would be copied for that reason
        cluster.step(0.05)
    blocks = corrupt(cluster, 5)
    cluster.check_prefix = lambda: None  # its history is broken, that is the point
    cluster.feed(ev.Tainted("something was not seen"))
    verify(cluster, repair=False)
    for _ in range(1000):
        if cluster.brain.verifier.awaiting:  # something was read, and the secondary compares it
            break
        cluster.step(0.001)
    assert not cluster.verified
    cluster.lose()
    settle(cluster)
    assert all(cluster.secondary.content[block] == -7_000_000 - block for block in blocks), (
        "copied, though nobody asked for it"
    )
    assert "something was not seen" in cluster.brain.state.taints
    assert until_verified(cluster).differing_blocks == len(blocks)


@pytest.mark.parametrize("seed", short(2, *range(4)))
def test_a_write_that_the_link_has_not_taken_yet_is_not_called_a_difference(seed):
    cluster = in_sync(seed, CALM)
    cluster.feed(ev.Outbound(1 << 30, 0))
    for block in range(20):
        identifier = cluster.kernel.submit(block)
        cluster.kernel.complete(identifier)
    cluster.step(0.05)
    assert not cluster.brain.state.queue.all_sent
    verify(cluster, repair=False)
    for _ in range(60):
        cluster.step(0.05)
    assert not cluster.verified, "compared with what the secondary cannot have yet"
    cluster.feed(ev.Outbound(0, 0))
    assert until_verified(cluster).differing_blocks == 0


@pytest.mark.parametrize("mib_per_second", [1, 4, 32])
def test_with_a_rate_limit_no_more_is_read_in_any_second_than_was_asked_for_and_one_batch(mib_per_second):
    cluster = Cluster(1, CALM, blocks=4096)
    settle(cluster)
    rate, reads = mib_per_second << 20, []
    right = cluster.carry_out

    def watched(effect, answers):
        if isinstance(effect, ev.ReadBlocks):
            reads.append((cluster.now, effect.runs.total() * 4096))
        right(effect, answers)

    cluster.carry_out = watched
    cluster.feed(ev.VerifyAsked(Runs(np.array([0]), np.array([cluster.kernel.blocks])), False, rate))
    assert until_verified(cluster).compared_blocks == 4096
    for first, (began, _) in enumerate(reads):
        within = [size for when, size in reads[first:] if when <= began + 1.0]
        assert sum(within) <= rate * 1.25 + 2 * max(size for _, size in reads), (
            "more than a rest of a quarter of a second allows"
        )
    assert max(size for _, size in reads) <= max(rate // 16, 1 << 20)


def test_data_that_was_read_is_not_kept_in_memory_while_the_secondary_compares():
    cluster = in_sync(3, CALM)
    offered = []
    right = cluster.carry_out

    def watched(effect, answers):
        right(effect, answers)
        if isinstance(effect, ev.SendDigests):
            offered.append(effect.reading)
        elif isinstance(effect, ev.ReadBlocks):
            assert not set(offered) & set(cluster.readings), "kept after its digests were made"

    cluster.carry_out = watched
    verify(cluster, repair=False)
    until_verified(cluster)
    assert offered and not set(offered) & set(cluster.readings)
