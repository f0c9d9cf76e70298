"""Status is never better than the truth: in a cut that nobody reports, in the middle of a resynchronization, and after a stop."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.in_sync import BLOCK, SIZE, in_sync, is_up_to_date, write
from tests.lab.cluster import Cluster
from tests.lab.images import differing_blocks
from tests.lab.patience import until
from tests.lab.programs import Outcome, command

MIB = 1 << 20


def test_in_a_silent_cut_both_sides_stop_calling_the_replica_up_to_date_and_say_why(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 60, wired=True) as (device, both):
        assert is_up_to_date(both.status())
        both.wire.cut()
        write(device, 7)
        until(lambda: not is_up_to_date(both.status()), "the primary calls it behind")
        until(lambda: not is_up_to_date(both.secondary_status()), "the secondary calls itself behind")
        until(lambda: not (both.status() or {})["connected"], "the link counts as dead")
        status = both.status()
        assert status is not None and status["mode"] == "normal", "long before the connection is given up"
        assert status["out_of_sync_bytes"] == BLOCK and status["connection_problem"]
        first, *_ = command("status", "--state", both.primary_state).output.splitlines()
        assert "behind by 4.0 KiB" in first and ("unanswered for" in first or "nothing was heard" in first)
        for number in range(20):
            write(device, 100 + number)
            assert not is_up_to_date(both.status()) and not is_up_to_date(both.secondary_status())
        both.wire.mend()
        both.wait()
        until(lambda: is_up_to_date(both.status()) and is_up_to_date(both.secondary_status()), "both are up to date")
        both.compare("after the cut")


def test_no_resynchronization_begins_on_a_link_that_is_dead(tmp_path: Path) -> None:
    options = ("--ack-timeout", 60, "--ring-size", "1M", "--log-size", "1M")
    with in_sync(tmp_path, *options, wired=True) as (device, both):
        both.wire.cut()
        write(device, 0, 4096)  # more than the rings hold: the log is full
        both.until_mode("unsynchronized")
        until(lambda: not (both.status() or {})["connected"], "the link counts as dead")
        words = both.primary.words()
        assert "resynchronizing" not in words, words
        both.wire.mend()
        both.wait()


def status_of_stopped(both: Cluster) -> Outcome:
    return command("status", "--state", both.primary_state, "--json")


def test_stopped_the_figure_is_that_of_now_and_unknown_where_nobody_knows(tmp_path: Path) -> None:
    with in_sync(tmp_path) as (device, both):
        assert both.primary.terminate() == 0
        write(device, 1000, 2560)
        both.secondary.terminate()
        told = json.loads(status_of_stopped(both).output)
        differing = differing_blocks(device.path, both.target, SIZE)
        assert len(differing) == 2560
        assert told["running"] is False and told["tracked"] is True and told["mode"] == "stopped"
        assert SIZE > told["out_of_sync_bytes"] >= len(differing) * BLOCK
        told = command("status", "--state", both.primary_state)
        assert told.code == 9 and "writes are still tracked" in told.errors and "10.0 MiB out of sync" in told.errors
        command("down", "--state", both.primary_state)
        write(device, 5000)
        assert json.loads(status_of_stopped(both).output)["out_of_sync_bytes"] is None
        assert "an unknown amount out of sync" in command("status", "--state", both.primary_state).errors


def test_blocks_that_a_promotion_would_roll_back_are_counted_until_the_commit(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--rate-limit", "4M/s") as (device, both):
        before = both.target.read_bytes()
        assert both.secondary.terminate() == 0
        write(device, 0, 4096)
        both.start_secondary()
        until(lambda: (both.status() or {})["progress"]["done_bytes"] > 8 * MIB, "half of it is staged")
        status = both.status()
        assert status is not None and status["mode"] == "resynchronizing"
        both.secondary.kill()
        assert both.target.read_bytes() == before, "the last image is what a promotion has"
        differing = len(differing_blocks(device.path, both.target, SIZE)) * BLOCK
        assert status["out_of_sync_bytes"] >= differing > 0 and status["lag_bytes"] >= differing
        both.start_secondary()
        both.wait()
        both.compare("at the end")
