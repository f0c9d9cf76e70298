"""The last transaction that a replica holds whole, for who promotes it: read from its own log, as the next mount will."""

from __future__ import annotations

from pathlib import Path

from pydbt.cli.transaction_words import name_words
from pydbt.core.calendar import time_of_ns
from pydbt.core.errors import PydbtError
from pydbt.core.protocol.divergence import short
from pydbt.core.seen.view import View
from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.on_disk import read_log
from pydbt.device.volume_reader import VolumeReader


def last_transaction_line(target: Path) -> str:
    """One sentence. What cannot be read is unknown: the promotion is done all the same."""
    try:
        with VolumeReader(target) as reader:
            log = read_log(reader.read, reader.size_bytes)
    except NotUnderstood as why:
        return f"its last transaction is unknown: {why}"
    except PydbtError as error:
        return f"its last transaction is unknown: {error}"
    newest = log.newest_whole
    if newest is None:
        return f"its last transaction is unknown: no transaction in the log of its {log.file_system} is whole"
    transaction = newest.transaction
    moment = time_of_ns(transaction.committed_ns) if transaction.committed_ns is not None else None
    when = f", committed at {short(moment)} by the clock of its primary" if moment else ""
    replay = "the next mount replays the log up to it" if newest.replayed else "everything of it is in its place"
    name = name_words(View({"name": transaction.name}))
    return f"the last transaction that it holds whole is {log.file_system} {name}{when}; {replay}"
