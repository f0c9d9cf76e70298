"""The heartbeat of a connection: how often the primary asks, and for how long an answer tells of the present. Seconds."""

from __future__ import annotations

HEARTBEAT_S = 1.0
# A heartbeat that was answered proves no more than this long that nothing older is missing on the secondary.
FRESH_S = 2.0
# Of a connection on which nothing was heard for this long nobody may say that it is there. Above ``FRESH_S``, so that one
# late answer is not told as a silence.
SILENT_S = 3.0
# A primary that does not tell its position asks every three seconds.
OLD_HEARTBEAT_S = 3.0

OUT_OF_SYNC = (1 << 64) - 1
"""In a PING, in the place of a position: the replica is not what the volume is, wherever its stream stands."""
