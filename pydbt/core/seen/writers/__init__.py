"""Who writes: sums of what the observing programs have seen, and what follows from them."""
