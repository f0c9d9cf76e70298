"""What a dashboard tells: every volume of the machine, as it is now, and never better than the truth."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.control import ControlServer, write_saved_status
from tests.lab.patience import until
from tests.lab.served_dashboard import STATUS, Dashboard, Machine, serving


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "m")
    yield made
    made.end()


def level(dashboard: Dashboard, name: str) -> str | None:
    found = dashboard.volume(name)
    return None if found is None else str(found["level"])


@contextlib.contextmanager
def stream_of(dashboard: Dashboard) -> Iterator[Iterator[dict[str, Any] | None]]:
    """The overviews of a stream as they come; None for a sign of life."""

    def events(sock: socket.socket) -> Iterator[dict[str, Any] | None]:
        received = b""
        while piece := sock.recv(1 << 20):
            received += piece
            while b"\n\n" in received:
                event, _, received = received.partition(b"\n\n")
                line = next((line for line in event.splitlines() if line.startswith((b"data: ", b": beat"))), b"")
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
                elif line:
                    yield None

    with dashboard.wire() as sock:
        host = "{}:{}".format(*dashboard.address)
        # HTTP/1.0: the answer comes without chunks in it.
        sock.sendall(
            f"GET /api/stream HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n".encode()
        )
        yield events(sock)


def until_told(events: Iterator[dict[str, Any] | None], what: Any) -> dict[str, Any]:
    for event in events:
        if event is not None and what({one["name"]: one for one in event["machines"][0]["volumes"]}):
            return event
    raise AssertionError("the stream has ended")


def test_a_volume_is_told_with_the_words_of_its_status_and_the_whole_of_it(machine: Machine) -> None:
    machine.add("data", out_of_sync_bytes=4096, unacknowledged_bytes=4096, replica_state="consistent", mode="normal")
    with serving(machine) as dashboard:
        overview = dashboard.get("/api/overview").json
        (here,) = overview["machines"]
        (volume,) = here["volumes"]
    assert here["reachable"] is True and here["name"] == volume["machine"] and overview["version"]
    assert volume["words"].startswith("behind by 4.0 KiB, 0.1 s; normal for") and volume["level"] == "behind"
    assert volume["status"]["queue"] == {"size": 100, "used": 1} and volume["unacknowledged_bytes"] == 4096
    assert volume["stale"] is False and len(volume["id"]) == 16 and int(volume["id"], 16) >= 0


def test_its_id_is_the_same_after_a_restart_of_the_dashboard(machine: Machine) -> None:
    machine.add("data")
    ids = set()
    for _ in range(2):
        with serving(machine) as dashboard:
            ids.add((dashboard.volume("data") or {})["id"])
    assert len(ids) == 1


def test_a_controller_that_stopped_is_stale_and_stopped_and_good_again_when_it_runs_again(machine: Machine) -> None:
    controller = machine.add("data")
    with serving(machine) as dashboard, stream_of(dashboard) as events:
        until_told(events, lambda told: told["data"]["level"] == "good")
        write_saved_status(controller.state_dir, {**STATUS, "source": "/dev/data"})
        controller.stop()
        told = until_told(events, lambda told: told["data"]["level"] == "stopped" and told["data"]["mode"] == "stopped")
        volume = told["machines"][0]["volumes"][0]
        assert volume["stale"] is True and "no controller is running" in volume["words"]
        assert volume["replica_state"] == "outdated" and volume["connected"] is False
        controller.start()
        until_told(events, lambda told: told["data"]["level"] == "good")


def test_a_controller_that_hangs_is_stale_and_holds_no_other_up(machine: Machine) -> None:
    machine.add("data")
    with machine.silent("hung"), serving(machine, settings={"watched_volume.UNANSWERED_S": 0.4}) as dashboard:
        with stream_of(dashboard) as events:
            told = until_told(events, lambda told: "gave no answer" in told["hung"]["problem"])
        volumes = {one["name"]: one for one in told["machines"][0]["volumes"]}
        assert volumes["data"]["level"] == "good" and not volumes["data"]["stale"]
        assert volumes["hung"]["level"] == "unknown" and volumes["hung"]["stale"]


def test_a_controller_that_is_stopped_by_a_signal_is_not_green(machine: Machine) -> None:
    place = machine.folder / "lib" / "other"
    place.mkdir(parents=True)
    (place / "volume.json").touch()
    program = (
        "import sys, time; from pydbt.controller.control import ControlServer\n"
        f"ControlServer({str(place)!r}, lambda request, gone: {STATUS!r}).start(); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        with (
            serving(machine, settings={"watched_volume.UNANSWERED_S": 0.4}) as dashboard,
            stream_of(dashboard) as events,
        ):
            until_told(events, lambda told: told["other"]["level"] == "good")
            process.send_signal(signal.SIGSTOP)
            told = until_told(events, lambda told: told["other"]["level"] != "good")
            volume = told["machines"][0]["volumes"][0]
            assert volume["level"] == "unknown" and volume["stale"] and volume["words"].startswith("STALE: ")
            process.send_signal(signal.SIGCONT)
            until_told(events, lambda told: told["other"]["level"] == "good")
    finally:
        process.kill()
        process.wait()


def test_volumes_appear_and_go(machine: Machine) -> None:
    machine.add("first")
    with serving(machine, settings={"collector.PLACES_S": 0.0}) as dashboard, stream_of(dashboard) as events:
        until_told(events, lambda told: set(told) == {"first"})
        second = machine.add("second")
        until_told(events, lambda told: set(told) == {"first", "second"})
        second.stop()
        for path in second.state_dir.iterdir():
            path.unlink()
        until_told(events, lambda told: set(told) == {"first"})


def test_twenty_volumes_are_on_one_overview(machine: Machine) -> None:
    for number in range(20):
        machine.add(f"v{number:02}", out_of_sync_bytes=number)
    with serving(machine) as dashboard:
        volumes = dashboard.machines()[0]["volumes"]
        assert {one["name"]: one["out_of_sync_bytes"] for one in volumes} == {f"v{n:02}": n for n in range(20)}
        assert {one["level"] for one in volumes} == {"good"} and len({one["id"] for one in volumes}) == 20


def test_a_change_is_told_to_every_watcher_and_the_rest_are_signs_of_life(machine: Machine) -> None:
    controller = machine.add("data")
    with serving(machine) as dashboard, contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(stream_of(dashboard)) for _ in range(5)]
        for events in watchers:
            until_told(events, lambda told: told["data"]["mode"] == "normal")
        assert any(event is None for event, _ in zip(watchers[0], range(4), strict=False)), "nothing is new"
        controller.status = {**controller.status, "mode": "unsynchronized", "connected": False}
        for events in watchers:
            until_told(events, lambda told: told["data"]["level"] == "bad")


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        ({"persist_problem": "the disk is broken"}, lambda told: "the disk is broken" in told["words"]),
        ({"lag_seconds": 40.0}, lambda told: told["lag_seconds"] == 40.0),
        ({"taints": ["a", "b"]}, lambda told: "b" in told["words"]),
    ],
)
def test_a_changed_sentence_waits_for_no_repetition(machine: Machine, change: dict[str, Any], is_told: Any) -> None:
    controller = machine.add("data", persist_problem="no space left", tainted=True, taints=["a"])
    with serving(machine, settings={"stream._REPEAT_S": 3600.0}) as dashboard, stream_of(dashboard) as events:
        until_told(events, lambda told: "no space left" in told["data"]["words"])
        controller.status = {**controller.status, **change}
        beats = 0
        for event in events:
            beats = beats + 1 if event is None else 0
            if event is not None and is_told(event["machines"][0]["volumes"][0]):
                break
            assert beats < 10, "only signs of life came"


def test_nobody_is_asked_while_nobody_looks(machine: Machine) -> None:
    controller = machine.add("data")
    with serving(machine) as dashboard:
        with stream_of(dashboard) as events:
            until_told(events, lambda told: bool(told))
        # The end of the stream is noticed when it is written to; then a round that began before may still come.
        seen: list[int] = []

        def rests() -> bool:
            seen.append(len(controller.asked))
            return len(seen) > 60 and len(set(seen[-60:])) == 1

        until(rests, "no question comes any more")
        before = len(controller.asked)
        assert level(dashboard, "data") == "good" and len(controller.asked) > before


def test_what_was_seen_long_ago_is_not_shown_as_of_now(machine: Machine) -> None:
    """A controller may end while nobody looks: the first picture after that is no old one."""
    controller = machine.add("data")
    with serving(machine) as dashboard:
        assert level(dashboard, "data") == "good"
        controller.stop()
        assert level(dashboard, "data") == "stopped"


def test_another_program_in_the_place_of_a_controller_is_no_volume_that_is_good(machine: Machine) -> None:
    place = machine.folder / "lib" / "odd"
    place.mkdir(parents=True)
    (place / "volume.json").touch()
    machine.add("data")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place / "control.sock"))
        listener.listen(16)
        listener.settimeout(0.05)
        with serving(machine) as dashboard, stream_of(dashboard) as events:
            for event in events:
                with contextlib.suppress(TimeoutError):
                    client, _ = listener.accept()
                    client.sendall(b'{"ok": true, "result": [[[\n')
                    client.close()
                told = {one["name"]: one for one in event["machines"][0]["volumes"]} if event else {}
                if "no controller" in told.get("odd", {}).get("problem", ""):
                    break
            assert told["odd"]["level"] in ("unknown", "stopped") and told["data"]["level"] == "good"


def test_questions_to_a_controller_that_hangs_leave_room_for_those_to_others(machine: Machine) -> None:
    machine.add("data").answers = {"method": {"state": "normal"}}
    with machine.silent("hung"), serving(machine, settings={"questions.QUESTION_S": 30.0}) as dashboard:
        places = {one["name"]: f"/api/volumes/{one['id']}/method" for one in dashboard.machines()[0]["volumes"]}
        request = f"GET {places['hung']} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n"
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(dashboard.wire()).sendall(request.encode())
            until(lambda: dashboard.get(places["hung"]).status == 503, "there are too many")
            assert dashboard.get(places["data"]).json == {"state": "normal"}


def test_a_question_that_nobody_answers_holds_no_end_up(machine: Machine) -> None:
    """The thread that asks would wait for ten minutes; the service manager kills what has not ended after 20 seconds."""
    settings = {"questions.QUESTION_S": 600.0}
    with (
        machine.silent("hung") as listener,
        serving(machine, settings=settings) as dashboard,
        contextlib.ExitStack() as stack,
    ):
        (hung,) = dashboard.machines()[0]["volumes"]
        request = f"GET /api/volumes/{hung['id']}/events?timeout=20 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        asking = stack.enter_context(dashboard.wire())
        asking.sendall(f"{request}Authorization: Bearer {dashboard.token}\r\n\r\n".encode())
        listener.settimeout(20.0)
        while b'"events"' not in stack.enter_context(listener.accept()[0]).recv(65536):
            pass
        assert dashboard.stop() == 0, dashboard.log.read_text()


def test_a_status_that_is_made_to_break_readers_hides_no_other_volume(machine: Machine) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    machine.add("deep", notices=deep)
    machine.add("large", notices=["x" * (2 << 20)])
    machine.add(
        "strange", mode=["normal"], mode_since=7, lag_seconds="x", secondaries={"a": 1}, progress=[], source={}, gate=1
    )
    machine.add("hostile", mode_since="\x1b[2J<script>", connection_problem="<img src=x>\n\x00", mode="unsynchronized")
    machine.add("data")
    with serving(machine) as dashboard:
        volumes = {one["name"]: one for one in dashboard.machines()[0]["volumes"]}
        assert volumes["data"]["level"] == "good" and len(volumes) == 5
        assert {volumes[name]["level"] for name in ("deep", "large", "strange")} == {"unknown"}
        assert "lists in lists" in volumes["deep"]["problem"] and "too long" in volumes["large"]["problem"]
        assert not {one for one in volumes["hostile"]["words"] + volumes["hostile"]["problem"] if ord(one) < 32}


def test_the_rate_of_the_wire_is_made_of_two_looks(machine: Machine) -> None:
    controller = machine.add("data")
    with serving(machine) as dashboard, stream_of(dashboard) as events:
        until_told(events, lambda told: told["data"]["wire_rate_bytes"] == 0)
        controller.status = {**controller.status, "sent_bytes": 10 << 20}
        until_told(events, lambda told: (told["data"]["wire_rate_bytes"] or 0) > 0)


def test_a_question_about_a_volume_goes_to_its_controller(machine: Machine) -> None:
    controller = machine.add("data")
    controller.answers = {
        "map": {"cells": {"out_of_sync": [1]}},
        "history": {"rows": []},
        "method": {"state": "normal"},
    }
    with serving(machine) as dashboard:
        place = f"/api/volumes/{(dashboard.volume('data') or {})['id']}"
        assert dashboard.get(f"{place}/map?start=0&end=4096&cells=1").json == {"cells": {"out_of_sync": [1]}}
        assert dashboard.get(f"{place}/history?from=1.5&until=2&points=7").json == {"rows": []}
        assert dashboard.get(f"{place}/method").json == {"state": "normal"}
        assert {"command": "map", "start": 0, "end": 4096, "cells": 1} in controller.asked
        (history,) = [request for request in controller.asked if request["command"] == "history"]
        assert (
            history == {"command": "history", "from": 1.5, "until": 2.0, "points": 7} and type(history["points"]) is int
        )
        for query in ("map", "map?end=x", "map?end=-1", "map?end=99999999999999999999999", "map?end=1&odd=1", "block?offset=1e3",
                      "history?from=nan&until=1"):  # fmt: skip
            answer = dashboard.get(f"{place}/{query}")
            assert answer.status == 400 and answer.json["problem"], query
        assert dashboard.get(f"{place}/io").status == 503, "a controller that does not know the question"
        assert dashboard.get(f"{place}/status").status == dashboard.get(f"{place}/down").status == 404
        for unknown in ("0123456789abcdef", "..%2f..", "%00"):
            assert dashboard.get(f"/api/volumes/{unknown}/map?end=1").status == 404
        controller.stop()
        answer = dashboard.get(f"{place}/map?end=4096")
        assert answer.status == 503 and "no controller is running" in answer.json["problem"]
    assert {request["command"] for request in controller.asked} == {"status", "map", "history", "method", "io"}


def test_a_member_of_the_group_sees_the_controllers_that_run_and_remembers_those_that_ran() -> None:
    """By their public sockets, and without root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pydbt-member-"))
    try:
        machine = Machine(folder)
        folder.chmod(0o755)
        with (
            socket_for_all(folder / "run/status-00112233aabbccdd.sock") as server,
            serving(machine, user=65534) as dashboard,
        ):
            (volume,) = dashboard.machines()[0]["volumes"]
            assert volume["level"] == "good" and volume["id"] == "00112233aabbccdd" and volume["device"] == "/dev/vdz"
            assert volume["name"] == "vdz", "it is called by its device"
            server.stop()
            until(lambda: dashboard.machines()[0]["volumes"][0]["level"] == "stopped", "it is remembered")
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def socket_for_all(path: Path) -> Iterator[ControlServer]:
    """That of one controller, for a group that everybody is in here."""
    with ControlServer(path, lambda request, gone: STATUS, 65534) as server:
        yield server
