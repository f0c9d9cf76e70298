"""Harm to a pair of controllers: for a moment, or so that nothing was tracked."""

from __future__ import annotations

import random
import time
from pathlib import Path

from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.kernel.capture import Capture
from pydbt.store.volume_state import load_state
from tests.lab.cluster import Cluster
from tests.lab.programs import command


def hurt(both: Cluster, how: str, chance: random.Random) -> None:
    """Something bad for a moment, then good again."""
    moment = chance.uniform(0.1, 1.5)
    match how:
        case "cut":
            both.wire.cut()
            time.sleep(moment * 4)
            both.wire.mend()
        case "kill secondary":
            both.secondary.kill()
            time.sleep(moment)
            both.start_secondary()
        case "freeze secondary":
            both.secondary.freeze()
            time.sleep(moment * 4)
            both.secondary.thaw()
        case "kill primary":
            both.primary.kill()
            time.sleep(moment)
            both.start_primary()
        case "kill both":
            both.primary.kill()
            both.secondary.kill()
            time.sleep(moment)
            both.start()
        case "pause":
            assert command("pause", "--state", both.primary_state).code == 0
            time.sleep(moment)
            assert command("resume", "--state", both.primary_state).code == 0


def pins_of(both: Cluster) -> Path:
    return pin_dir_of(load_state(both.primary_state))


def lose_tracking(both: Cluster) -> None:
    """What a reboot does: the programs are gone, and nobody has written down that it was a clean stop."""
    both.primary.kill()
    Capture.remove_pins(pins_of(both))
