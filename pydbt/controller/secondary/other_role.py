"""What a secondary needs for its other role, and for its return into this one."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.core.errors import StateError
from pydbt.network.address import format_address, unix_path
from pydbt.store.listen_file import save_listen


def keep_listen(options: SecondaryOptions) -> None:
    """Write down where its primary finds it: a side that was demoted is found there after a reboot.

    A port that was taken because it was free is another one then, and is not kept.
    """
    if options.listen_port or unix_path(options.listen_host) is not None:
        with contextlib.suppress(StateError):  # the disk may be full, and a file of this machine may say it as well
            save_listen(options.state_dir, format_address(*options.listen))


def as_primary(options: SecondaryOptions, replica: tuple[str, int]) -> PrimaryOptions:
    """What this process is after it has taken its primary's place, and how it is a secondary again after that."""
    afterwards = options.afterwards or PrimaryOptions(
        source=options.target, secondaries=(replica,), state_dir=options.state_dir,
        insecure=options.insecure, identity=options.identity, volume_file=options.volume_file,
    )  # fmt: skip
    peers = afterwards.peers if len(afterwards.peers) == 1 else ()  # that one is the machine that was the primary
    again = replace(options, accept_target=False, new_peer_key=False, listener=None, afterwards=None)
    return replace(afterwards, secondaries=(replica,), peers=peers, afterwards=again)
