"""One thread that asks every controller of this machine for its status while somebody looks, and waits for none of them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import selectors
import threading
import time
from math import inf
from pathlib import Path
from typing import Any

from pydbt.core.errors import PydbtError
from pydbt.core.printable import printable
from pydbt.core.seen.sight import Asked, Sight
from pydbt.dashboard.background import Background
from pydbt.dashboard.panorama import MachinePicture, Panorama
from pydbt.dashboard.places import Finder, VolumePlace
from pydbt.dashboard.watched_volume import WatchedVolume, seen

LOCAL_ROUND_S = 0.8
"""Between the beginnings of two rounds: a change is told within a second."""
PATIENCE_S = 0.3
"""The picture of a round is not held back for longer than this by a controller that takes its time."""
FIRST_PATIENCE_S = 1.0
"""The same for a round after a time in which nobody looked: what was known before is old by then."""
PAUSE_S = 0.1
"""Between two rounds when somebody waits for one: nobody has the controllers asked without end."""
PLACES_S = 3.0
"""How often it is looked for volumes that appear or go."""
PROGRAMS_S = 10.0
STOP_S = 2.0

_log = logging.getLogger(__name__)


class Collector:
    """Of this machine. ``machine``: the name under which it is shown."""

    def __init__(self, finder: Finder, panorama: Panorama, machine: str) -> None:
        self._finder, self._panorama, self._machine = finder, panorama, machine
        self._volumes: dict[str, WatchedVolume] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._background = Background(self.wake)
        self._number = panorama.join(machine, self.wake)
        self._thread = threading.Thread(target=self._run, name="dashboard-collector", daemon=True)
        self._stopping = False
        self._began = self._places_at = self._programs_at = -inf
        self._wish = 0
        self._patience_s = PATIENCE_S
        self._in_round = False
        self._problem = ""

    def start(self) -> None:
        self._background.start()
        self._thread.start()

    def wake(self) -> None:
        """Somebody begins to look, or a slow look is done."""
        with contextlib.suppress(OSError):  # it has ended
            os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        self._stopping = True
        self.wake()
        self._thread.join(STOP_S)
        for volume in self._volumes.values():
            self._part_with(volume)
        self._selector.close()
        os.close(self._bell)

    def place_of(self, identity: str) -> VolumePlace | None:
        """The volume of an id, as far as it was seen; for any thread."""
        volume = self._volumes.get(identity)
        return None if volume is None else volume.place

    # --- the thread -----------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:  # a fault in one turn must not leave the pictures as they are for ever
                _log.error("the controllers cannot be asked, which is a bug: %r", error, exc_info=error)
                self._problem = "this dashboard has a fault: see its log"
                time.sleep(LOCAL_ROUND_S)

    def _turn(self) -> None:
        now = time.monotonic()
        wanted, wish = self._panorama.wanted(self._number)
        if not self._in_round and wanted and now >= self._due(wish):
            self._begin(now, wish)
        ready = {key.fileobj for key, _ in self._selector.select(self._timeout(wanted, wish))}
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        now = time.monotonic()
        for volume in self._volumes.values():
            if volume.wire in ready or volume.is_asked:
                volume.take(now)
                self._listen_to(volume)
        if self._in_round and (now >= self._began + self._patience_s or not self._is_awaited()):
            self._in_round = False
            self._panorama.put(self._number, self._picture(now), self._wish)

    def _due(self, wish: int) -> float:
        """When the next round begins, if somebody looks."""
        return self._began + (LOCAL_ROUND_S if wish <= self._wish else PAUSE_S)

    def _timeout(self, wanted: bool, wish: int) -> float | None:
        """Until what is due next; None while nobody looks."""
        if self._in_round:
            return max(self._began + self._patience_s - time.monotonic(), 0.0)
        return max(self._due(wish) - time.monotonic(), 0.0) if wanted else None

    def _is_awaited(self) -> bool:
        """Whether a controller that answered in time until now owes an answer, or a first slow look is on its way."""
        return any(volume.is_awaited or self._is_looked_at(volume) for volume in self._volumes.values())

    def _is_looked_at(self, volume: WatchedVolume) -> bool:
        name = volume.place.id
        return volume.is_stopped and self._background.is_pending(name) and self._background.result(name) is None

    def _begin(self, now: float, wish: int) -> None:
        pause = now - self._began > 3 * LOCAL_ROUND_S
        self._began, self._wish, self._in_round = now, wish, True
        self._patience_s = FIRST_PATIENCE_S if pause else PATIENCE_S
        if now - self._places_at >= PLACES_S:
            self._places_at = now
            self._find()
        for volume in self._volumes.values():
            if volume.ask(now) and volume.is_stopped:
                self._look_at_stopped(volume, now)
            self._listen_to(volume)
        if now - self._programs_at >= PROGRAMS_S:
            self._programs_at = now
            volumes = {name for one in self._volumes.values() if (name := one.volume)}
            self._background.want("programs", lambda: self._finder.programs(volumes))

    def _look_at_stopped(self, volume: WatchedVolume, now: float) -> None:
        if volume.wants_last_known(now):
            self._background.want(volume.place.id, lambda: self._stopped(volume))

    def _stopped(self, volume: WatchedVolume) -> dict[str, Any]:
        """In the thread of slow looks."""
        began = time.monotonic()
        report = self._finder.stopped(volume.place)
        volume.look_took_s = time.monotonic() - began
        return report

    def _find(self) -> None:
        """Volumes appear, and those of which nothing is left go."""
        try:
            places = {place.id: place for place in self._finder.places()}
        except (OSError, PydbtError) as error:
            self._problem = f"the volumes of this machine cannot be looked for: {printable(str(error))}"
            return
        self._problem = ""
        volumes = {}
        for identity, place in places.items():
            known = self._volumes.pop(identity, None)
            if known is not None and known.place.where != place.where:
                self._part_with(known)
                known = None
            volumes[identity] = known or WatchedVolume(place)
            volumes[identity].place = place
        for gone in self._volumes.values():
            self._part_with(gone)
            self._background.forget(gone.place.id)
        self._volumes = volumes  # a new one: other threads look things up in it

    def _listen_to(self, volume: WatchedVolume) -> None:
        """Have the selector know its connection, whichever that is by now."""
        if volume.wire is volume.registered:
            return
        # A socket that is closed by now too, before another volume's gets its number.
        if volume.registered is not None:
            self._selector.unregister(volume.registered)
        if volume.wire is not None:
            self._selector.register(volume.wire, selectors.EVENT_READ)
        volume.registered = volume.wire

    def _part_with(self, volume: WatchedVolume) -> None:
        volume.close()
        self._listen_to(volume)

    # --- the picture ----------------------------------------------------------------------------------------
    def _picture(self, now: float) -> MachinePicture:
        sights = []
        for volume in self._volumes.values():
            if not volume.is_stopped:
                self._background.forget(volume.place.id)
            volume.last_known = self._background.result(volume.place.id)
            sights.append(volume.sight(self._machine, now))
        sights += [self._sight_of_programs(report) for report in self._programs_alone()]
        return MachinePicture(self._machine, not self._problem, self._problem, 0.0, sights)

    def _programs_alone(self) -> list[dict[str, Any]]:
        """Programs of no volume that is known by now; none before each controller has said which volume it has."""
        volumes = self._volumes.values()
        if not all(one.has_told for one in volumes):
            return []
        known = {one.volume for one in volumes}
        found = self._background.result("programs") or ()
        return [report for report in found if str(report.get("volume")).partition("-")[0] not in known]

    def _sight_of_programs(self, report: dict[str, Any]) -> Sight:
        name = str(report.get("volume") or report.get("device") or "")
        identity = hashlib.sha256(f"programs {name}".encode(errors="surrogateescape")).hexdigest()[:16]
        return seen(Asked(report, 0.0), VolumePlace(identity, printable(name), Path(), "device", ""), self._machine)
