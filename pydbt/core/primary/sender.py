"""The stream on its way out: queued updates are handed to the sender, as far as it has room."""

from __future__ import annotations

from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.events import SendFrame, SendSettled, SendStream
from pydbt.core.primary.link import Link
from pydbt.core.primary.state import State

# Handed to the sender at most this much at once; the rest waits in the ring, where "log full" is decided.
OUTBOUND_LIMIT_BYTES = 8 << 20


def send_stream(state: State, link: Link, completed: CompletedTransactions) -> None:
    """In order (Fig. 4, 424), and nothing behind a write that has to complete first. ``completed`` goes along."""
    budget = OUTBOUND_LIMIT_BYTES - link.queued_bytes
    while budget > 0 and (item := state.queue.take(state.uncompleted.sendable_through)) is not None:
        budget -= item.length_bytes
        completed.tell_before(item.first_sequence)
        if item.reading is not None and item.runs is not None:
            state.effects.add(SendSettled(item.reading, item.first_sequence, item.runs))
            continue
        if item.mark is not None:
            state.effects.add(SendFrame(item.mark))
            continue
        state.effects.add(SendStream(item.records, item.last_sequences, item.first_sequence))
        link.handed_over(item.length_bytes)
        state.statistics.sent(item.records)
    completed.tell_at_the_end()
