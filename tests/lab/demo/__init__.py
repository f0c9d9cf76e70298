"""The demo: the whole program at work on a machine of its own making.

``scratch`` holds what it makes and takes it away again, ``network``, ``programs``, ``work`` and ``images`` are the
parts, ``play`` puts them in order, and ``summary`` tells what happened.
"""
