"""``python -m tests.core.protocol.benchmark``: what a history costs: times of writes, and transactions, in frames and records."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pydbt.controller.primary.outbox import stream_frames
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.protocol.wire import encode
from pydbt.core.secondary.journal import encode_record
from pydbt.core.tracking.capture_record import RECORD, Operation
from pydbt.core.tracking.in_flight import InFlightReport
from tests.core.primary.parts import state_of

ROUNDS = 400
BATCH_BYTES = 2 << 20


def records_of(sectors: int) -> np.ndarray:
    """Scattered writes of one size that fill a batch."""
    count = min(4096, BATCH_BYTES // (sectors * 512))
    records = np.zeros(count, RECORD)
    records["sector"] = np.random.default_rng(1).permutation(count) * 2 * sectors
    records["sectors"], records["pieces"], records["op"] = sectors, 1, Operation.WRITE
    records["time_ns"] = np.arange(count) * 1000 + 10**15
    return records


def least_us(*works: Callable[[], object]) -> list[float]:
    """Of each the least time of the thread, in turns: others on the machine make some rounds slow."""
    found = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for place, work in enumerate(works):
            began = time.thread_time_ns()
            work()
            found[place] = min(found[place], (time.thread_time_ns() - began) / 1000)
    return found


def main() -> None:
    """Processor time of the thread per batch, and bytes on the wire; without times, and with them."""
    for sectors in (1, 8, 128):
        records = records_of(sectors)
        last = np.arange(1, len(records) + 1)
        payload = np.random.default_rng(2).bytes(len(records) * sectors * 512)
        plain, timed = (stream_frames(records, last, 1, payload, offset_ns) for offset_ns in (None, 10**18))
        took = least_us(
            lambda given=(records, last, 1, payload): [encode(one, 0) for one in stream_frames(*given)],
            lambda given=(records, last, 1, payload, 10**18): [encode(one, 0) for one in stream_frames(*given)],
            lambda frames=plain: [encode_record(one, 0, 1) for one in frames],
            lambda frames=timed: [encode_record(one, 0, 1) for one in frames],
        )
        sizes = [sum(len(piece) for one in frames for piece in encode(one, 0)) for frames in (plain, timed)]
        rows = {"frames, us": took[:2], "records, us": took[2:], "bytes": sizes}
        told = ", ".join(f"{name} {a:.0f} -> {b:.0f} ({b / a - 1:+.2%})" for name, (a, b) in rows.items())
        print(f"{len(records)} writes of {sectors * 512} bytes: {told}")


def transactions() -> None:
    """Processor time per transaction from its commit to its frame."""
    nothing = InFlightReport(*(Runs.none() for _ in range(4)))
    ones = [NamedTransaction(str(n), n, 7, 2.5, n, n, n) for n in range(1, 1001)]

    def tell() -> None:
        state = state_of(mode=Mode.NORMAL)
        state.replica.keeps_history = True
        completed = CompletedTransactions(state)
        for begin in range(0, len(ones), 10):
            some = ones[begin : begin + 10]
            completed.ended(some, nothing)
            completed.completed(some)
            completed.advance()
            completed.tell_before(some[-1].sequence + 1)

    (took,) = least_us(tell)
    print(f"transactions: {took / len(ones):.1f} us each")


if __name__ == "__main__":
    main()
    transactions()
