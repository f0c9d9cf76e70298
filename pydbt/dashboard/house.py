"""What one dashboard is: who may read it, under which names it is reached, and where its answers come from."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydbt.dashboard.pages import Page
from pydbt.dashboard.panorama import Panorama
from pydbt.dashboard.tokens import Token
from pydbt.dashboard.workers import Workers

TRUSTED = "pydbt.trusted"
"""Set in the scope of a request whose sender has proved that he may read."""
DENIED = "pydbt.denied"
"""Set in the scope of a request over a socket of this machine whose process belongs to a user who may not use it."""
PEER = "pydbt.peer"
"""In the scope of a request: who its connection has proved to be, by the kernel or by TLS; empty for nobody."""

Asker = Callable[[str, dict[str, Any], float], dict[str, Any]]
"""Asks the controller of a volume, by its id: the request, and how long to wait. KeyError: no such volume; and PydbtError."""


@dataclass(frozen=True, slots=True)
class House:
    """``own_names``: of this server, None behind a proxy; ``cookie_name``: another one for each port of the machine.

    ``pages`` is empty with ``--metrics-only``. ``workers`` wait for controllers; ``asking``: questions about each volume.
    """

    token: Token
    panorama: Panorama
    ask: Asker
    workers: Workers
    own_names: frozenset[str] | None
    cookie_name: str
    pages: Mapping[str, Page] = field(default_factory=dict)
    metrics_only: bool = False
    is_secure: bool = False
    asking: Counter[str] = field(default_factory=Counter)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
