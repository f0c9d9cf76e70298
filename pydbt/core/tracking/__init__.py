"""What is written and not yet on the secondary: the transaction log, the update lists, the maps (Figs. 2 and 3)."""
