"""From a plan that fails to a short one that fails in the same way (delta debugging), and its story in words."""

from __future__ import annotations

from tests.simulation.cluster.checkers import Violation
from tests.simulation.cluster.schedule import Op, Plan
from tests.simulation.cluster.world import World

# No more plays than this for one failure.
PATIENCE = 400


def failure_of(plan: Plan) -> Exception | None:
    """What goes wrong when a plan is played; None when nothing does."""
    try:
        World(plan).play()
    except Exception as error:
        return error
    return None


def kind_of(error: Exception) -> str:
    """Failures of one kind break the same promise, or stop at the same assertion."""
    return error.promise if isinstance(error, Violation) else f"{type(error).__name__}: {error}"[:60]


def shrink(plan: Plan, kind: str, patience: int = PATIENCE) -> Plan:
    """Leave out whatever the failure does not need."""
    ops, pieces = list(plan.ops), 2
    while len(ops) > 1 and patience > 0:
        size = -(-len(ops) // pieces)
        for begin in range(0, len(ops), size):
            fewer: list[Op] = ops[:begin] + ops[begin + size :]
            patience -= 1
            error = failure_of(plan.with_ops(tuple(fewer)))
            if error is not None and kind_of(error) == kind:
                ops, pieces = fewer, max(pieces - 1, 2)
                break
            if patience <= 0:
                break
        else:
            if size == 1:
                break
            pieces = min(pieces * 2, len(ops))
    return plan.with_ops(tuple(ops))


def story(plan: Plan, lines: int = 120) -> str:
    """The last lines of what happens in a plan, decoded."""
    world = World(plan, verbose=True)
    try:
        world.play()
        end = "nothing went wrong"
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    shape = f"seed {plan.seed}, {len(plan.ops)} operations: {plan.shape}"
    return "\n".join([shape, *map(str, plan.ops), "...", *world.log[-lines:], end])
