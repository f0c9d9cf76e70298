"""State files: atomic replacement, locks, the journal on the secondary."""
