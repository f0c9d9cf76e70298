"""The demo: the whole program at work on a machine of its own making.

``scratch`` holds everything that it makes and takes it away again, ``controllers`` and ``work`` are the parts, ``play``
puts them in order, and ``summary`` tells what happened.
"""
