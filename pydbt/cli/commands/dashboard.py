"""``controller dashboard``: pages, figures and metrics of the volumes of this machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pydbt.cli.program import Stopped
from pydbt.cli.values import ADDRESS, PATH
from pydbt.cli.volume_files import STATE_ROOT
from pydbt.core.errors import MachineError, UsageError
from pydbt.network.address import format_address, parse_address, unix_path
from pydbt.network.handed_over import handed_over_sockets, listening_place
from pydbt.posix.service_manager import ServiceManager

if TYPE_CHECKING:
    from pydbt.dashboard.service import DashboardOptions, OtherMachine
    from pydbt.dashboard.tokens import Token

PEERS = STATE_ROOT / "dashboard"


@click.command()
@click.option(
    "--listen",
    type=ADDRESS,
    default="127.0.0.1:7780",
    show_default=True,
    metavar="ADDR:PORT|unix:PATH",
    help="Where to serve; port 0 is any that is free.",
)
@click.option("--token-file", type=PATH, metavar="FILE", help="Keep the token in FILE, which is made when missing.")
@click.option("--identity", type=PATH, metavar="FILE", help="This machine's identity, for TLS and --of; see `pki`.")
@click.option("--certificate", type=PATH, metavar="FILE", help="A certificate for browsers, with its chain (PEM).")
@click.option("--key", type=PATH, metavar="FILE", help="The key of --certificate, if it is in another file.")
@click.option("--of", "others", multiple=True, metavar="[NAME@]HOST:PORT", help="Also show that machine's dashboard.")
@click.option(
    "--peers",
    type=PATH,
    metavar="DIR",
    default=str(PEERS),
    show_default=True,
    help="Where the names that --of has proved are kept.",
)
@click.option("--name", "names", multiple=True, metavar="HOST", help="Another host name under which browsers come.")
@click.option("--allow", "users", multiple=True, metavar="USER", help="Another user who may use the socket unix:PATH.")
@click.option("--metrics-only", is_flag=True, help="Serve /metrics for Prometheus, and no page.")
def dashboard(**given: Any) -> int:
    """Show all volumes in a browser.

    Serves pages, figures and metrics of every volume and replica of this machine, and prints the link that opens them. It can
    change nothing. Reading needs the token in that link; without --token-file it is another one at each start. On an address
    that other machines reach it serves by TLS, with --identity or --certificate. On unix:PATH, for a proxy, no token is
    needed: root, its own user, and those of --allow may read. Runs until it is stopped. Where a socket unit of systemd has
    handed over its sockets, it serves at these in the place of --listen.
    """
    _require_libraries()
    # Only now: no other command needs them.
    from pydbt.cli.responsive import write_in_background
    from pydbt.dashboard.service import run_dashboard

    options = _options(given)
    shows_token = given["token_file"] is None

    def ready(address: str) -> None:
        write_in_background()
        if unix_path(address) is not None or (given["metrics_only"] and not shows_token):
            words = f"serving {address}"
        elif shows_token:
            words = f"{address}?token={options.token.text}"
        else:
            words = f"{address}?token=... (the token is in {given['token_file']})"
        click.echo(words)
        sys.stdout.flush()

    before = signal.signal(signal.SIGTERM, _stop)  # until the server listens to it
    try:
        return run_dashboard(options, ready, ServiceManager.that_started_us())
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _options(given: dict[str, Any]) -> DashboardOptions:
    from pydbt.cli.finders import finder_for_this_user
    from pydbt.dashboard.service import DashboardOptions, users_named

    kept = tuple(handed_over_sockets())
    places = [listening_place(sock) for sock in kept]
    is_default = click.get_current_context().get_parameter_source("listen") is ParameterSource.DEFAULT
    if places and not is_default and given["listen"] not in places:
        raise UsageError(
            f"--listen {format_address(*given['listen'])} is not where the socket unit listens, which has handed over "
            f"{format_address(*places[0])}: change its ListenStream=, and leave --listen out"
        )
    local = unix_path((places or [given["listen"]])[0][0]) is not None
    if given["users"] and not local:
        raise UsageError("--allow is for a socket of this machine: use it with --listen unix:PATH, or leave it out")
    if local and given["token_file"] is not None:
        raise UsageError(
            "a socket of this machine needs no token, because the kernel tells who connects: leave --token-file out"
        )
    if given["key"] is not None and given["certificate"] is None:
        raise UsageError("--key is the key of --certificate: name that too")
    return DashboardOptions(
        listen=given["listen"],
        machine=os.uname().nodename,
        token=_token(given["token_file"]),
        finder=finder_for_this_user(),
        names=frozenset(name.lower() for name in given["names"]),
        users=users_named(given["users"]),
        metrics_only=given["metrics_only"],
        identity=given["identity"],
        certificate=given["certificate"],
        key=given["key"],
        others=tuple(_other(text) for text in given["others"]),
        peers=given["peers"],
        kept=kept,
    )


def _token(path: Path | None) -> Token:
    from pydbt.dashboard.tokens import new_token, token_of_file

    return new_token() if path is None else token_of_file(path)


def _other(text: str) -> OtherMachine:
    from pydbt.dashboard.service import OtherMachine

    name, at, address = text.rpartition("@")
    if at and not name:
        raise UsageError(f"{text!r} names no machine before the @: use NAME@HOST:PORT, or HOST:PORT")
    host, port = parse_address(address)
    if unix_path(host) is not None:
        raise UsageError(f"{text!r} is a socket of this machine: name the HOST:PORT of a dashboard elsewhere")
    return OtherMachine(name, (host, port))


def _require_libraries() -> None:
    """They are installed with the package; a program from elsewhere may lack them."""
    try:
        import starlette
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"the dashboard needs starlette and uvicorn, and this machine lacks {error.name}: install python3-starlette and "
            "python3-uvicorn"
        ) from None
    assert starlette
