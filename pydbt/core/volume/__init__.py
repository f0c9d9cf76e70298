"""One volume with several secondaries: a brain for each, and what they share."""
