"""How many of the pages the programs look at: all of them, or under load one chunk in some."""

from __future__ import annotations

from dataclasses import dataclass

MANY_LOOKS_PER_S = 8_000
"""Each costs up to a third of a microsecond: below this, at most a quarter of a percent of a CPU."""
FEW_LOOKS_PER_S = 2_000
SAMPLED_CHUNKS = 8
"""One in this many; a power of two."""
WRITTEN_OUT_S = 60.0
"""Pages that were dirtied while one chunk in some was remembered are written out by then (dirty_expire_centisecs is 30 s)."""


@dataclass(frozen=True, slots=True)
class ChunkSample:
    """One chunk in this many is remembered when its pages become dirty, and looked up when they are written."""

    remembered_every: int = 1
    looked_up_every: int = 1

    @property
    def is_partial(self) -> bool:
        return self.looked_up_every > 1


class Sampling:
    """``look`` once per reading."""

    def __init__(self) -> None:
        self._sample = ChunkSample()
        self._since = 0.0

    def look(self, looks_per_s: float, now: float) -> ChunkSample:
        if looks_per_s > MANY_LOOKS_PER_S:
            self._sample = ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS)
        elif looks_per_s < FEW_LOOKS_PER_S and self._sample.remembered_every > 1:
            self._sample, self._since = ChunkSample(1, SAMPLED_CHUNKS), now
        elif self._sample.remembered_every == 1 and now >= self._since + WRITTEN_OUT_S:
            self._sample = ChunkSample()
        return self._sample
