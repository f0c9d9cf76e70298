"""Decisions only: no I/O, no clock, no thread, no randomness. Sources: US 7,039,661 and docs/reference/format.md."""
