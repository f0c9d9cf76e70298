"""An observing program that does nothing, by which the cost of measuring is known."""

from __future__ import annotations

from pathlib import Path

from pydbt.kernel.tracing.plan import Plan

PLAN = Plan(str(Path(__file__).resolve().with_name("empty.bpf.c")), lambda btf: {})
