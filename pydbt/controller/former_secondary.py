"""The ``controller secondary`` of a replica that was promoted: it goes on, and has a control socket beside that of the volume."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.controller.control import call, is_answering
from pydbt.core.errors import PydbtError
from pydbt.core.seen.view import View

FORMER_SOCKET_NAME = "former-secondary.sock"
_ANSWER_S = 5.0


def former_socket(state_dir: Path) -> Path:
    """Another than ``control.sock``, at which a `controller run` of the volume answers."""
    return state_dir / FORMER_SOCKET_NAME


def former_words(state_dir: Path) -> str:
    """An addition for a state directory: that its former secondary goes on, and why; empty where there is none."""
    place = former_socket(state_dir)
    if not os.path.lexists(place) or not is_answering(place):
        return ""
    try:
        told = View(call(place, {"command": "status"}, _ANSWER_S))
    except PydbtError as error:
        return f"; its former secondary does not answer: {error}"
    process, listen = told.whole("process"), told.text("listen")
    at = f" at {listen}" if listen else ", as soon as its address is free"
    return f"; 'controller secondary' (process {process}) goes on, and tells the old primary of the promotion{at}"
