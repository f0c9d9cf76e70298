"""The kernel's notices of the network make an outage known before the heartbeat does, and the way back short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.in_sync import BLOCK, in_sync, is_up_to_date, write
from tests.lab.patience import run, until
from tests.lab.programs import command


def test_a_lost_carrier_is_told_by_its_name_and_ends_the_connection_long_before_its_time_is_up(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 300, wired=True) as (device, both):
        words = f"the interface {both.wire.near} has no carrier"
        both.wire.unplug()
        until(lambda: (both.status() or {})["connection_problem"] == words, "the primary names the interface")
        write(device, 7)
        assert not is_up_to_date(both.status()), "at once, and not after a heartbeat"
        until(lambda: (both.status() or {})["mode"] == "unsynchronized", "the connection is given up")
        status = both.status()
        assert status is not None and not status["connected"] and status["connection_problem"] == words
        # Until the map is merged with the kernel's, a block may be counted twice.
        until(lambda: (both.status() or {})["out_of_sync_bytes"] == BLOCK, "exactly what was written is out of sync")
        first, *_ = command("status", "--state", both.primary_state).output.splitlines()
        assert words in first
        both.wire.plug()
        both.wait()
        until(lambda: is_up_to_date(both.status()), "it is up to date again")
        assert not (both.status() or {})["connection_problem"]
        both.compare("after the outage")


@pytest.mark.variant
def test_a_carrier_that_is_back_soon_keeps_the_connection(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 300, wired=True) as (device, both):
        both.wire.unplug()
        until(lambda: "no carrier" in (both.status() or {})["connection_problem"], "the primary names the interface")
        both.wire.plug()
        write(device, 7)
        both.wait()
        until(lambda: is_up_to_date(both.status()), "it is up to date again")
        both.compare("after the flap")


def test_data_that_nobody_answers_is_told_with_its_retransmissions(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 300, wired=True) as (device, both):
        both.wire.cut()
        write(device, 7)
        until(lambda: "retransmission" in (both.status() or {})["connection_problem"], "the kernel's count is told")
        status = both.status()
        assert status is not None and status["mode"] == "normal" and not status["connected"]
        assert not is_up_to_date(status)
        both.wire.mend()
        both.wait()
        until(lambda: is_up_to_date(both.status()), "it is up to date again")
        both.compare("after the cut")


@pytest.mark.variant
def test_a_route_that_is_lost_and_comes_back_is_told_too(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 300, wired=True) as (device, both):
        far = both.wire.far_address
        run("ip", "route", "add", "unreachable", far)
        try:
            until(lambda: (both.status() or {})["connection_problem"] == f"no route to {far}", "the route is missed")
            write(device, 7)
            until(lambda: (both.status() or {})["mode"] == "unsynchronized", "the connection is given up")
        finally:
            run("ip", "route", "del", "unreachable", far)
        both.wait()
        both.compare("after the outage")
