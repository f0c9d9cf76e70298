"""What a promotion gives up, in sentences for people."""

from __future__ import annotations

from pydbt.core.protocol.divergence import short
from pydbt.core.secondary.promotion import Loss
from pydbt.core.units import format_bytes, format_seconds


def loss_lines(lost: Loss) -> list[str]:
    """One sentence per line; what is not known is called so."""
    host = lost.host or "the primary"
    if not lost.as_of:
        return [f"as of a moment that is not known: the last writes of {host} may be only there"]
    lines = [f"as of {short(lost.as_of)} by the clock of {host}: everything that was written there before is here"]
    if lost.nothing:
        return [*lines, f"{host} had ended its replication, and lacked nothing then; later writes there are only there"]
    if lost.behind_bytes is None:
        lines.append(f"an unknown amount that was written before {short(lost.told)} is only on {host}")
    elif lost.behind_bytes:
        lines.append(
            f"the last {format_seconds(lost.seconds)} before {short(lost.told)}, about {format_bytes(lost.behind_bytes)}, "
            f"are only on {host}"
        )
    lines.append(f"everything that {host} wrote after {short(lost.told)} is only there, and not known here")
    return lines
