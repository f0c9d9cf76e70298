"""A dashboard of another machine, looked at with this machine's identity: its overview, and answers about its volumes.

What it tells is judged here again (``sight_of``): no machine is shown better than its own status and the age of that allow.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import h11

from pydbt.controller.control import parsed_json
from pydbt.controller.registry import name_of
from pydbt.core.errors import NoAnswer, PeerError, PydbtError, StateError, Unreachable
from pydbt.core.printable import printable
from pydbt.core.protocol.peer_identity import OTHER_KEY, objection_to_revoked
from pydbt.core.seen.sight import LEVELS_MAX, STALE_S, Asked, Sight, is_shallow, sight_of
from pydbt.core.seen.view import View
from pydbt.dashboard.panorama import MachinePicture, Panorama
from pydbt.dashboard.secure import proved_machine
from pydbt.network.address import format_address
from pydbt.network.tls import Identity, Pin
from pydbt.network.tls_errors import explain_tls_error

REMOTE_ROUND_S = 1.0
REMOTE_RETRY_S = 10.0
"""A machine that cannot be reached is tried again this often."""
REMOTE_ANSWER_S = 5.0
"""A whole overview has come by then."""
_OVERVIEW_BYTES_MAX = 16 << 20
_VOLUMES_MAX = 4096


class RemoteDashboard:
    """One machine. Lives in the server's loop; ``ask`` is for other threads."""

    def __init__(
        self, address: tuple[str, int], identity: Identity, tls: ssl.SSLContext, pin: Pin, panorama: Panorama
    ) -> None:
        self._host, self._port = address
        self._address = format_address(*address)
        self._identity, self._tls, self._pin, self._panorama = identity, tls, pin, panorama
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = panorama.join(self._address, self._wake)
        self._name = self._address
        self._heard_at = -math.inf
        self._problem = "it was not asked yet"
        # What it says of itself.
        self._is_well, self._own_problem = True, ""
        self._sights: list[Sight] = []
        self._volumes: dict[str, str] = {}

    async def run(self) -> None:
        """Look while somebody looks here, until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        next_at = 0.0
        while True:
            self._bell.clear()
            wanted, wish = self._panorama.wanted(self._number)
            if not wanted:
                await self._bell.wait()
                continue
            if self._loop.time() >= next_at:
                began = self._loop.time()
                failed = await self._look()
                next_at = began + (REMOTE_RETRY_S if failed else REMOTE_ROUND_S)
            self._panorama.put(self._number, self._picture(), wish)
            await self._pause(min(next_at - self._loop.time(), REMOTE_ROUND_S))

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._bell.wait(), max(seconds, 0.05))
        except TimeoutError:
            return

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bell.set)

    async def _look(self) -> bool:
        """Whether it failed. Whatever comes of another machine is one sentence here."""
        assert self._loop is not None
        asked_at = self._loop.time()
        try:
            content = await self.fetch("/api/overview", REMOTE_ANSWER_S)
            machine = View(content).parts("machines")[:1]
            if not machine:
                raise PeerError("it is no dashboard of this program")
        except PydbtError as error:
            self._problem = printable(str(error))
            return True
        self._heard_at, self._problem = asked_at, ""  # its pictures may be as old as the question
        self._take(machine[0])
        return False

    def _take(self, machine: View) -> None:
        """Of several volumes of one id only the first: a question names one."""
        self._is_well = machine.flag("reachable") is True
        self._own_problem = machine.text("problem") or (
            "" if self._is_well else "its dashboard does not see its volumes"
        )
        volumes: dict[str, str] = {}
        sights = []
        for told in machine.parts("volumes")[:_VOLUMES_MAX]:
            theirs = told.text("id") or ""
            ours = name_of(f"{self._address} {theirs}")
            if ours in volumes:
                continue
            volumes[ours] = theirs
            sights.append(self._sight(told, ours))
        self._sights, self._volumes = sights, volumes

    def _sight(self, told: View, identity: str) -> Sight:
        is_old, age_s = told.flag("stale") is not False, told.number("age_seconds")
        if age_s is None or age_s < 0 or (is_old and age_s <= STALE_S):
            age_s = STALE_S + 1
        silence = told.text("problem") or "" if is_old else ""
        back = told.text("progress_back") or ""
        wire, growth = told.number("wire_rate_bytes"), told.number("backlog_growth_bytes")
        asked = Asked(told.part("status").values, age_s, silence, wire, back, growth)
        return sight_of(asked, identity, self._name, told.text("name") or "", datetime.now(UTC))

    def _picture(self) -> MachinePicture:
        if self._heard_at == -math.inf:
            return MachinePicture(self._name, False, self._problem, None)
        # The clock of a loop is time.monotonic(), as that of pictures.
        reachable = self._is_well and not self._problem
        problem = self._problem or self._own_problem
        return MachinePicture(self._name, reachable, problem, 0.0, self._sights, self._heard_at)

    # --- questions ------------------------------------------------------------------------------------------
    def knows(self, identity: str) -> bool:
        """Whether a volume of this id is one of that machine; for any thread."""
        return identity in self._volumes

    def ask(self, identity: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """The answer to a question about one of its volumes; waits, and is not for the thread of the loop. PydbtError."""
        assert self._loop is not None
        numbers = urlencode({name: value for name, value in request.items() if name != "command"})
        path = f"/api/volumes/{quote(self._volumes[identity], safe='')}/{request['command']}?{numbers}"
        answer = asyncio.run_coroutine_threadsafe(self.fetch(path, timeout_s), self._loop).result()
        return dict(answer) if isinstance(answer, Mapping) else {}

    async def fetch(self, path: str, timeout_s: float) -> Any:
        """The JSON at a path of it. PeerError, StateError."""
        try:
            return await asyncio.wait_for(self._fetch(path), timeout_s)
        except TimeoutError:
            raise NoAnswer(f"{self._address} gave no answer within {timeout_s:g} s") from None
        except ssl.SSLError as error:
            raise PeerError(f"{self._address}: {explain_tls_error(error, timeout_s)}") from None
        except OSError as error:
            raise Unreachable(f"{self._address} cannot be reached: {error.strerror or error}") from None
        except h11.ProtocolError as error:
            raise PeerError(f"{self._address} is no dashboard: {error}") from None

    async def _fetch(self, path: str) -> Any:
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, server_hostname="", ssl_handshake_timeout=REMOTE_ANSWER_S
        )
        try:
            self._require_peer(writer)
            wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=16 * 1024)
            headers = [("host", self._address), ("accept", "application/json"), ("connection", "close")]
            writer.write(wire.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
            writer.write(wire.send(h11.EndOfMessage()) or b"")
            status, body = await _answer(wire, reader)
        finally:
            writer.transport.abort()
        try:
            content = parsed_json(body)
        except (ValueError, RecursionError):
            raise PeerError(f"{self._address} is no dashboard of this program: its answer is no JSON") from None
        if not is_shallow(content, LEVELS_MAX + 4):
            raise PeerError(f"{self._address} is no dashboard of this program: there are lists in lists without end")
        if status != 200:
            words = View(content).text("problem") or f"its answer has the status {status}"
            raise PeerError(f"{self._address}: {words}")
        return content

    def _require_peer(self, writer: asyncio.StreamWriter) -> None:
        """The machine that was there before, or that was named. It is remembered."""
        machine = proved_machine(writer.get_extra_info("ssl_object"))
        if machine is None:
            raise PeerError(f"{self._address} has shown no certificate")
        if machine.key in self._identity.revoked:
            raise PeerError(f"{self._address}: {objection_to_revoked(machine).why}")
        if (found := self._pin.objection(machine)) is not None:
            key = " with another key than before" if found.code == OTHER_KEY else ", and another one was there before"
            raise PeerError(
                f"{self._address} proves to be {printable(machine.name)!r}{key}: if that machine has changed, remove what is "
                "kept of it in the folder of --peers"
            )
        self._pin.remember(machine)
        self._name = printable(machine.name) or self._address


async def _answer(wire: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body. ConnectionError when it ends early, StateError when it is too long."""
    status, body = 0, bytearray()
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(256 * 1024))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _OVERVIEW_BYTES_MAX:
                raise StateError("its answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("it has closed the connection")
