"""Observing programs: they look at the kernel for whoever watches, and are no part of capture.

They are attached by ``Observed`` (observed.py), from a text in bpf/ that a plan names (plan.py). They are never pinned: they end
with the process that holds them. Nothing that happens to them changes what is captured, and nothing of them taints a volume.
``ahead.py`` is here because it compiles both: these programs and those of capture.
"""
