"""The report of a secondary: the image's fields are its own, in the order that programs know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pydbt.controller.expiry import IdentityReport
from pydbt.controller.secondary.report import JournalReport, SecondaryServiceReport
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary.held_marks import MarkReport
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.replica import ReplicaState
from pydbt.core.secondary.status import KeptPlace, KeptPlaces, ReplicaStatus
from pydbt.core.secondary.told_transactions import ReplicaTransactions, ToldTransaction
from pydbt.core.seen.headline import headline
from pydbt.core.seen.sight import Level, level_of
from pydbt.core.seen.view import View

REPLICA = ReplicaStatus(
    mode="streaming",
    replica_state=ReplicaState.UP_TO_DATE,
    replica="cd" * 16,
    volume="ab" * 16,
    size=1 << 20,
    epoch=7,
    sequence=42,
    generations=Generations(5, (4,), (3,), shared=True),
    applied_sequence=40,
    connected=True,
    silent_seconds=0.5,
    staged_bytes=0,
    unapplied_bytes=4096,
    target_problem="",
    unwritable=KeptPlaces(4096, (KeptPlace(8192, 4096),)),
)
REPORT = SecondaryServiceReport(
    role="secondary",
    target="/dev/x",
    target_bytes=1 << 21,
    listen="0.0.0.0:7790",
    problem="",
    journal=JournalReport(4096, 1 << 30),
    received_bytes=8192,
    identity=None,
    replica=REPLICA,
    primary=PrimaryReport("alpha", "/dev/vda3", 0.5, False, "2026-01-02T03:04:05Z", 0, "", "", 0),
    transactions=ReplicaTransactions(
        ToldTransaction("ext4", "48211", "2026-01-02T03:04:04.000Z", 0.8, "0000000000000007", 41), None
    ),
    marks=(MarkReport("a", "0000000000000009", None, "0000000000000007", 40, True, False, 0, True),),
    handover=None,
    divergence=None,
)
JSON = {
    "role": "secondary",
    "target": "/dev/x",
    "target_bytes": 1 << 21,
    "listen": "0.0.0.0:7790",
    "problem": "",
    "journal": {"used": 4096, "size": 1 << 30},
    "received_bytes": 8192,
    "identity": None,
    "mode": "streaming",
    "replica_state": "up-to-date",
    "replica": "cd" * 16,
    "volume": "ab" * 16,
    "size": 1 << 20,
    "epoch": "0000000000000007",
    "sequence": 42,
    "generations": {
        "current": "0000000000000005",
        "bitmap": ["0000000000000004"],
        "history": ["0000000000000003"],
        "shared": True,
    },
    "applied_sequence": 40,
    "connected": True,
    "silent_seconds": 0.5,
    "staged_bytes": 0,
    "unapplied_bytes": 4096,
    "target_problem": "",
    "unwritable": {"bytes": 4096, "places": [{"offset_bytes": 8192, "length_bytes": 4096}]},
    "primary": {
        "host": "alpha",
        "source": "/dev/vda3",
        "heard_seconds": 0.5,
        "ended": False,
        "told": "2026-01-02T03:04:05Z",
        "behind_bytes": 0,
        "as_of": "",
        "as_of_epoch": "",
        "as_of_sequence": 0,
    },
    "transaction": {
        "file_system": "ext4",
        "name": "48211",
        "committed": "2026-01-02T03:04:04.000Z",
        "age_seconds": 0.8,
        "epoch": "0000000000000007",
        "sequence": 41,
    },
    "newest_transaction": None,
    "marks": [
        {
            "name": "a",
            "number": "0000000000000009",
            "moment": None,
            "epoch": "0000000000000007",
            "sequence": 40,
            "synced": True,
            "partly": False,
            "uncertain_bytes": 0,
            "resynchronized": True,
        }
    ],
    "handover": None,
    "divergence": None,
}


def test_the_json_of_a_secondary_has_the_keys_that_programs_know_in_their_order() -> None:
    assert REPORT.to_json() == JSON and list(REPORT.to_json()) == list(JSON)


def test_an_identity_is_told_with_its_end_and_its_problem() -> None:
    told = replace(REPORT, identity=IdentityReport("2027-01-02T03:04:05+00:00", "it expires")).to_json()
    assert told == {**JSON, "identity": {"expires": "2027-01-02T03:04:05+00:00", "problem": "it expires"}}


def test_while_it_starts_again_nothing_is_followed_and_the_first_line_says_why() -> None:
    restarting = replace(REPORT, replica=REPLICA.without_engine(), problem="replica.json cannot be written").to_json()
    assert (restarting["mode"], restarting["connected"], restarting["silent_seconds"]) == ("restarting", False, None)
    assert restarting["replica_state"] == "consistent"
    line = headline(View({**restarting, "running": True}), datetime.now(UTC))
    assert "restarting" in line and "replica.json cannot be written" in line
    assert level_of(View({**restarting, "running": True}), stale=False) is Level.BAD
    inconsistent = replace(REPLICA, replica_state=ReplicaState.INCONSISTENT).without_engine()
    assert inconsistent.replica_state is ReplicaState.INCONSISTENT


def test_a_change_of_places_that_is_open_is_told_for_programs_and_in_the_first_line_for_people() -> None:
    found = OpenHandover(HandoverStage.GIVEN, "10.0.0.2:7790", "2026-01-02T03:04:05+00:00")
    away = replace(REPLICA, mode="offline", replica_state=ReplicaState.CONSISTENT, connected=False, silent_seconds=None)
    told = replace(REPORT, replica=away, handover=found).to_json()
    assert told["handover"] == {
        "stage": "given", "other": "10.0.0.2:7790", "since": "2026-01-02T03:04:05+00:00", "words": found.words,
    }  # fmt: skip
    assert (
        headline(View(told), datetime.now(UTC))
        == f"the replica is consistent; offline; no primary (alpha was heard 0.5 s ago); {found.words}"
    )


def test_writes_that_a_demoted_side_alone_has_are_reported_until_somebody_has_decided() -> None:
    own = Divergence("alpha", "/dev/vda3", "2026-01-02T03:04:05Z", "", "2026-01-02T03:09:05Z", 80 << 20)
    away = replace(REPLICA, mode="offline", replica_state=ReplicaState.CONSISTENT, connected=False, silent_seconds=None)
    told = replace(REPORT, replica=away, divergence=own).to_json()
    assert told["divergence"] == {**own.to_values(), "words": own.choice}
    line = headline(View(told), datetime.now(UTC))
    assert "this side holds 80.0 MiB that the other never had" in line and "'controller invalidate'" in line
