"""The common ground of the rooms that touch the machine: whole writes, durable names, locks, calls that ``os`` lacks.

It imports ``core`` and no other room. ``kernel``, ``device``, ``store``, ``network``, ``controller``, ``dashboard`` and
``cli`` may import it. What fails raises OSError, as ``os`` does, and the caller knows which sentence the operator needs. Two
have the sentence themselves: ``atomic`` raises StateError, and ``ownership`` Unsafe for a path that others can change.
"""
