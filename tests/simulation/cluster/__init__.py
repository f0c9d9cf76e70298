"""A cluster in one process: the real controllers and brains, with everything under them simulated from one seed.

The shells are the product's own (`run_primary` with its loop, `Engine` with its workers): what they do in which order is
under test as it is, not a copy of it. Below them, `kernel`, `disk`, `files` and `network` are models that fail in
every way the real ones can; `checkers` looks at both sides and knows more than any actor.
"""
