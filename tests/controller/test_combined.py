"""A volume with several secondaries is reported no better than the worst of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.controller.primary.combined import combined, lacking_at_most
from pydbt.controller.primary.report import (
    ComparedSince,
    LastVerification,
    LogReport,
    PlacesReport,
    ProgressReport,
    RestReport,
    SecondaryReport,
    SequenceReport,
    TransactionReport,
    VerifyReport,
    WriteIntentReport,
)
from pydbt.core.primary.statistics import Figures, UnsettledFigures
from pydbt.core.primary.verifier import VerifyProgress
from pydbt.core.protocol.generations import NO_GENERATIONS
from pydbt.core.units import MIB

WELL = SecondaryReport(
    secondary="",
    connected=True,
    connection_problem="",
    refused="",
    mode="normal",
    mode_since="2026-01-02T03:00:00Z",
    phase="idle",
    waiting_for="",
    replica_state="up-to-date",
    tainted=False,
    taints=(),
    verify=VerifyReport(None, None),
    write_intent=None,
    assumed_in_sync=False,
    sequence=SequenceReport(12345, 12340),
    transaction=TransactionReport("48211", "2026-01-02T03:04:05.000Z", 0.8, 12000),
    out_of_sync_bytes=0,
    unacknowledged_bytes=0,
    unsettled_bytes=0,
    unreadable=PlacesReport(0, ()),
    unwritable=PlacesReport(0, ()),
    lag_bytes=20480,
    lag_seconds=0.25,
    last_in_sync="2026-01-02T03:04:05Z",
    sent_bytes=5 * MIB,
    log=LogReport(1 << 20, 640, 10, 20, 5),
    progress=ProgressReport(0, 0, 0, None, None),
    epochs=None,
    persist_problem="",
    generations=NO_GENERATIONS,
    statistics=Figures(resyncs=1, unsettled_blocks=UnsettledFigures(failed=2), out_of_sync_max_bytes=7),
)


def several(**changes: dict) -> list[SecondaryReport]:
    """Three secondaries, of which some are changed, by name."""
    return [replace(WELL, secondary=name, **changes.get(name, {})) for name in ("a:1", "b:2", "c:3")]


def test_every_secondary_is_complete_to_the_oldest_transaction_that_one_of_them_holds() -> None:
    older = TransactionReport("48209", "2026-01-02T03:04:04.000Z", 1.8, 400)
    assert combined(several()).transaction == WELL.transaction
    assert combined(several(**{"b:2": {"transaction": older}})).transaction == older
    assert combined(several(**{"b:2": {"transaction": older}, "c:3": {"transaction": None}})).transaction is None
    timeless = TransactionReport("48212", None, None, 12010)
    assert combined(several(**{"b:2": {"transaction": timeless}})).transaction is None, "nobody knows which is older"


def test_a_volume_is_called_no_better_than_the_worst_of_its_secondaries() -> None:
    one = combined(several(**{
        "b:2": {"mode": "unsynchronized", "replica_state": "outdated", "connected": False, "connection_problem": "no route",
                "out_of_sync_bytes": 3 * MIB, "last_in_sync": None, "lag_seconds": None},
        "c:3": {"tainted": True, "taints": ("an unknown operation wrote",), "replica_state": "inconsistent"},
    }))  # fmt: skip
    assert (one.mode, one.replica_state, one.tainted) == ("unsynchronized", "inconsistent", True)
    assert one.taints == ("an unknown operation wrote",)
    assert one.connected is False and one.connection_problem == "b:2: no route"
    assert one.out_of_sync_bytes == 3 * MIB and one.last_in_sync is None and one.lag_seconds is None
    assert one.statistics == Figures(resyncs=3, unsettled_blocks=UnsettledFigures(failed=6), out_of_sync_max_bytes=7)
    assert one.sent_bytes == 3 * WELL.sent_bytes
    assert one.secondary == "a:1, b:2, c:3"


def test_a_figure_that_is_unknown_of_one_secondary_is_unknown_of_the_volume() -> None:
    one = combined(
        several(**{"b:2": {"out_of_sync_bytes": None, "lag_bytes": None}, "c:3": {"out_of_sync_bytes": MIB}})
    )
    assert one.out_of_sync_bytes is None and one.lag_bytes is None


def test_the_bytes_to_compare_after_a_power_loss_are_those_of_the_worst_secondary() -> None:
    def kept(era: int | None, compared: ComparedSince | None = None) -> dict:
        return {"write_intent": WriteIntentReport(era, "2026-01-02T03:04:05+00:00", compared, "")}

    one = combined(several(**{"a:1": kept(9), "c:3": kept(8, ComparedSince(7, 3 * MIB))}))
    assert one.write_intent is not None
    assert one.write_intent.era == 8 and one.write_intent.compared == ComparedSince(7, 3 * MIB)


def test_a_single_secondarys_report_is_the_volumes() -> None:
    assert combined([WELL]) is WELL


def test_secondaries_that_all_follow_make_a_volume_that_follows() -> None:
    one = combined(several())
    assert (one.mode, one.replica_state, one.tainted) == ("normal", "up-to-date", False)
    assert one.connected and not one.connection_problem and one.lag_seconds == 0.25


def test_verifications_under_way_are_one_and_of_those_that_ended_the_worst_is_told() -> None:
    def ended(differing_bytes: int) -> LastVerification:
        return LastVerification("2026", False, 100, differing_bytes, None, None, ())

    def verified(done_bytes: int, differing_bytes: int) -> dict:
        running = VerifyProgress(False, 100, done_bytes, differing_bytes, done_bytes)
        rest = RestReport(f"2026-01-02T03:04:{done_bytes}+00:00", "a reason")
        return {"verify": VerifyReport(running, ended(differing_bytes), rest)}

    one = combined(several(**{"a:1": verified(10, 0), "b:2": verified(20, 5)}))
    assert one.verify.running == VerifyProgress(False, 200, 30, 5, 30)
    assert one.verify.last == ended(5)
    assert one.verify.rest is not None and one.verify.rest.until == "2026-01-02T03:04:10+00:00", (
        "the one that ends first"
    )


def test_a_resynchronization_of_several_ends_with_the_last_of_them() -> None:
    one = combined(several(**{
        "a:1": {"progress": ProgressReport(10, 100, 7, 3.0, None)}, "b:2": {"progress": ProgressReport(0, 100, 2, 9.0, None)},
    }))  # fmt: skip
    assert one.progress == ProgressReport(10, 200, 9, 9.0, None)
    one = combined(several(**{
        "a:1": {"progress": ProgressReport(10, 100, 7, 3.0, None)}, "b:2": {"progress": ProgressReport(0, 100, 0, None, 60.0)},
    }))  # fmt: skip
    assert one.progress == ProgressReport(10, 200, 7, None, 60.0), "nobody knows when the other one will be done"


def test_a_secondary_that_refused_makes_the_volume_refused() -> None:
    one = combined(
        several(**{"b:2": {"mode": "refused", "refused": "split-brain", "connection_problem": "both were written"}})
    )
    assert (one.mode, one.refused, one.connection_problem) == ("refused", "split-brain", "b:2: both were written")


@pytest.mark.parametrize("more", [{}, {"filled_bytes": 0, "unreadable_bytes": 4096}])
def test_a_verification_that_was_written_down_by_any_version_is_told_as_it_is(more: dict[str, int]) -> None:
    kept = {
        "ended": "2026-01-02T03:04:05+00:00",
        "repaired": True,
        "compared_bytes": MIB,
        "differing_bytes": 4096,
        **more,
        "places": [{"offset_bytes": 8192, "length_bytes": 4096}],
    }
    told = LastVerification.of(kept).to_json()
    assert told == kept and list(told) == list(kept)


def test_without_a_look_at_the_maps_what_the_volume_lacks_is_never_too_little() -> None:
    one = replace(WELL, out_of_sync_bytes=5 * MIB, unacknowledged_bytes=MIB)
    other = replace(WELL, out_of_sync_bytes=3 * MIB, unacknowledged_bytes=2 * MIB)
    assert lacking_at_most([one], 64 * MIB) == (5 * MIB, MIB)
    assert lacking_at_most([one, other], 64 * MIB) == (8 * MIB, 3 * MIB)
    assert lacking_at_most([one, other], 6 * MIB) == (6 * MIB, MIB), "of 6 MiB, 5 are lacking for good"
    unknown = replace(WELL, out_of_sync_bytes=None, unacknowledged_bytes=None)
    assert lacking_at_most([one, unknown], 64 * MIB) == (None, None)
