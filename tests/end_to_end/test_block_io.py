"""A running primary answers what its device does, while somebody asks, and its capture notices nothing of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydbt.controller import control
from tests.end_to_end.in_sync import in_sync, is_up_to_date, write
from tests.lab.kernel_programs import program_names
from tests.lab.patience import until, wait_until


def test_io_is_counted_while_somebody_asks_and_capture_goes_on(tmp_path: Path) -> None:
    def ask() -> dict[str, Any]:
        return control.call(both.primary_state, {"command": "io"}, 30)

    def observing() -> set[int]:
        return {number for number, name in program_names().items() if name.startswith("pydbt_request_i")}

    with in_sync(tmp_path) as (device, both):
        before = observing()
        first = ask()
        assert first["starting"] and not first["problem"]
        until(lambda: not ask()["starting"], "the first figures")
        assert len(observing() - before) >= 1, "its program that capture does not have"
        counted = ask()["minute"]["write"]["bytes"]
        for number in range(40):
            write(device, number, 2)
        # As one request of 8 KiB each, or as two where the kernel does not join their pages.
        wait_until(lambda: ask()["minute"]["write"]["bytes"] >= counted + 40 * 8192, "40 writes are counted")
        answer = ask()
        assert answer["device"] == str(device.path) and answer["timed_every"] == 1 and answer["in_requests"]
        assert {size for size, _ in answer["minute"]["write"]["sizes"]} & {4096, 8192}
        assert answer["minute"]["write"]["latency_ns"]["device"]["p99"] > 0
        assert len(answer["moments"]) == len(answer["latency_heat"]["columns"]["write"])
        assert sum(map(sum, answer["offset_heat"]["columns"]["write"])) == answer["minute"]["write"]["bytes"]
        assert answer["cost"]["controller_memory_bytes"] > 1 << 20
        until(lambda: ask()["cost"].get("capture_ns_per_io", 0) > 0 or write(device, 7), "the cost is measured", 60)
        mine = observing() - before
        wait_until(lambda: not mine & observing(), "nobody has asked for 15 s", 60)
        both.wait()
        status = both.status()
        assert status is not None and is_up_to_date(status) and not status["tainted"]
        ask()
        until(lambda: not ask()["starting"], "it begins again")
        mine = observing() - before
        assert both.primary.terminate() == 0
        assert not mine & observing(), "they end with the controller"
