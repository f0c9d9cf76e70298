"""Puts a simulated world in the place of the real one, name by name, and back."""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch
from uuid import UUID

from pydbt.controller import roles
from pydbt.controller.primary import (
    configuring,
    feed,
    handing_over,
    inbox,
    mark_commands,
    peer_connection,
    programs,
    used_blocks,
    volume,
)
from pydbt.controller.primary import (
    effects as primary_effects,
)
from pydbt.controller.primary import (
    ending as primary_ending,
)
from pydbt.controller.primary import (
    handshake as primary_handshake,
)
from pydbt.controller.primary import (
    loop as primary_loop,
)
from pydbt.controller.primary import (
    metadata as primary_metadata,
)
from pydbt.controller.primary import (
    service as primary_service,
)
from pydbt.controller.primary import (
    status as primary_status,
)
from pydbt.controller.primary.era_recovery import UNTRACKED
from pydbt.controller.primary.use_watch import Use
from pydbt.controller.secondary import engine as secondary_engine
from pydbt.controller.secondary import kept_target
from pydbt.controller.secondary import workers as secondary_workers
from pydbt.core.primary import sender as core_sender
from pydbt.core.primary import sweep as core_sweep
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.tracking.discards import ALWAYS_ZEROS
from pydbt.posix import atomic
from pydbt.posix import files as posix_files
from pydbt.store import journal_files, map_keeper, reached, volume_state
from tests.simulation.cluster.files import SimOs, SimPath, read_simulated
from tests.simulation.cluster.primary_node import PrimaryNode
from tests.simulation.cluster.primary_stand_ins import SimInbox, SimOutbox, SimReader
from tests.simulation.cluster.schedule import Shape
from tests.simulation.cluster.secondary_node import TeeJournal
from tests.simulation.cluster.switchover import held_device, shaking_hands
from tests.simulation.cluster.transactions import SimTransactions

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World

SEGMENT_BYTES = 64 << 10
CLOCK_OFFSET_NS = 1_700_000_000_000_000_000


def _reading_modules() -> list[ModuleType]:
    """Those that read files of a state directory."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("pydbt.store.")]
    return [module for module in loaded if hasattr(module, "read_own")]


class NoGuard:
    """In the place of TargetGuard: nobody else touches a simulated target."""

    def __init__(self, *_: object) -> None: ...

    def away(self, incarnation: int) -> str:
        return ""

    def may_be_another(self, incarnation: int) -> bool:
        return False

    def begin(self, incarnation: int) -> None: ...

    def check(self) -> None: ...

    def end(self) -> None: ...

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class AtOnce:
    """In the place of Job: a thread that is done before its starter goes on."""

    def __init__(self, name: str, work: Callable[[], None], then: Callable[[], None]) -> None:
        work()
        then()


class _Numbers:
    """In the place of the module secrets: different every time, and the same every run."""

    def __init__(self) -> None:
        self._last = 0

    def token_hex(self, size: int) -> str:
        self._last += 1
        return f"{self._last:0{2 * size}x}"

    def randbits(self, size: int) -> int:
        self._last += 1
        return self._last


@contextlib.contextmanager
def installed(primary: PrimaryNode, shape: Shape, world: World) -> Iterator[None]:
    """The product's modules find this world while the block lasts. Only one at a time in a process."""
    clock, rng, numbers = primary.clock, primary.rng, _Numbers()
    simulated_os = SimOs(rng)
    SimOutbox.machine = primary.machine
    reader = {
        "clock": clock,
        "rng": rng,
        "kernel": primary.kernel,
        "machine": primary.machine,
        "read_error": 0.0,
        "bad": frozenset(),
    }
    for name, value in reader.items():
        setattr(SimReader, name, value)
    limits = {
        module: {name: value for name, value in shape.limits.items() if hasattr(module, name)}
        for module in (core_sender, core_sweep)
    }
    assert {name for table in limits.values() for name in table} == set(shape.limits), "a limit is nowhere"
    nothing = contextlib.nullcontext
    swaps = {
        **limits,
        primary_loop: {
            "time": clock, "control": SimpleNamespace(write_saved_status=lambda *_: None),
            "UseWatch": lambda _: SimpleNamespace(begin=lambda *_: None, take=Use, problem=lambda _: ""),
        },
        inbox: {"queue": SimpleNamespace(SimpleQueue=SimInbox, Empty=queue.Empty)},
        feed: {"time": clock},
        volume: {
            "time": clock, "BlockReader": SimReader, "MapWriter": primary.map_writer,
        },
        primary_metadata: {"time": clock},
        primary_ending: {"time": clock, "clean_marker": primary.marker, "boot_id": primary.boot_id},
        primary_handshake: {"boot_id": primary.boot_id},
        configuring: {"boot_id": primary.boot_id, "secrets": SimpleNamespace(randbits=primary.epoch)},
        peer_connection: {
            "clock_offset_ns": lambda: CLOCK_OFFSET_NS, "monotonic_ns": lambda: int(clock.now * 1e9),
            "Outbox": SimOutbox, "threading": SimpleNamespace(Thread=primary.thread),
        },
        primary_effects: {"clock_offset_ns": lambda: CLOCK_OFFSET_NS},
        mark_commands: {"clock_offset_ns": lambda: CLOCK_OFFSET_NS, "monotonic_ns": lambda: int(clock.now * 1e9)},
        primary_status: {"time": clock},
        used_blocks: {"used_extents": primary.used, "Job": AtOnce, "time": clock},
        primary_service: {
            "check_plain_tcp": lambda *_: None, "check_source": lambda *_: primary.device, "is_answering": lambda *_: False,
            "DirectReader": lambda *_: nothing(SimpleNamespace(check=lambda: None)), "make_state_dir": lambda _: [],
            "prove_secondaries": lambda *_, **__: None, "_serve": primary.serve,
            "discard_promise": lambda _: ALWAYS_ZEROS,
            "followed_transactions": lambda *_, **__: SimTransactions(
                primary.kernel.geometry.block_count % 4 == 0, primary.kernel, clock
            ),
            "is_untouched": primary.is_untouched, "forget": lambda _: None,
            "BelowWatch": lambda *_: SimpleNamespace(
                untracked=lambda _: UNTRACKED, kept=None, problem="", begin=lambda *_: None, look=lambda **_: "",
            ),
        },
        handing_over: {
            "time": clock, "require_unused": lambda *_: None, "require_start": lambda _: None,
            "listening": lambda options: options, "os": held_device(world), "shake_hands": shaking_hands(world),
        },
        roles: {
            "BlockDevice": SimpleNamespace(identify=lambda _: primary.device), "Target": primary.as_target,
            "require_same_source": lambda state, *_, **__: state,
            "is_untouched": primary.is_untouched, "secrets": numbers, "shutil": SimpleNamespace(rmtree=lambda *_, **__: None),
        },
        programs: {
            "require_ready": lambda _: True, "warn_of_others": lambda *_: None,
            "Capture": primary.capture_class(), "boot_id": primary.boot_id,
            "finish_replacement": lambda _: None, "tracked_volume": primary.tracked_volume,
            "_look_at_pinned": primary.look_at_pinned,
            "gap_since": lambda *given: "" if primary.is_untouched(*given) else "it was written since",
        },
        secondary_engine: {
            "time": clock, "Path": SimPath, "JournalFiles": TeeJournal, "secrets": numbers, "_hold_reserve": lambda _: None,
            "SEGMENT_BYTES": SEGMENT_BYTES, "SMALLEST_SEGMENT_BYTES": SEGMENT_BYTES,
            "TargetGuard": NoGuard,
            "SecondaryConfig": lambda **given: SecondaryConfig(**given | shape.secondary),
        },
        secondary_workers: {"APPLY_BYTES": SEGMENT_BYTES},
        kept_target: {"time": clock},
        posix_files: {"os": simulated_os},
        journal_files: {"os": simulated_os},
        reached: {"os": simulated_os},
        atomic: {"os": simulated_os, "Path": SimPath},
        map_keeper: {"os": simulated_os},
        volume_state: {"Path": SimPath, "uuid4": partial(UUID, int=0xABCDEF)},
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for module, names in swaps.items():
            for name, value in names.items():
                stack.enter_context(patch.object(module, name, value))
        for module in _reading_modules():
            stack.enter_context(patch.object(module, "read_own", read_simulated))
        for logger in (logging.getLogger("pydbt"),):
            stack.callback(setattr, logger, "disabled", logger.disabled)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield
