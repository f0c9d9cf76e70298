"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# An example has no time of its own: a busy machine would fail it. A test that hangs is ended by pytest's own timeout.
settings.register_profile("pydbt", deadline=None)
settings.load_profile("pydbt")
