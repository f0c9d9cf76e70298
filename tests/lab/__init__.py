"""One bench for the tests, the demo and the figures: disks, cables, controllers and loads, taken down whatever happens.

It is no part of the program, and imports no test. ``demo`` is ``scripts/demo``, ``figures`` is ``scripts/bench``.
"""
