"""The common ground of the rooms that touch the machine: whole writes, durable names, locks, calls that ``os`` lacks.

It imports ``core`` and no other room. ``kernel``, ``device``, ``store``, ``network``, ``controller`` and ``cli`` may
import it. Everything here raises OSError, as ``os`` does; the caller knows which sentence the operator needs.
"""
