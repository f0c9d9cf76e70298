"""Figures of this program against its bars, one module a figure: see docs/internals/benchmarks.md and ``scripts/bench``.

Nothing here is imported by the program. Each figure makes its own loop devices and processes and takes them down.
"""
