"""Both ends mean the same volume, or nothing is written."""

from __future__ import annotations

from pydbt.core.protocol.frame_checks import MAX_TEXT
from pydbt.core.protocol.frames import (
    FORMERLY,
    MARKS,
    PROGRESS,
    PROTOCOL_VERSION,
    SECTOR_SIZE,
    SIDES,
    TARGET_ERROR,
    WELCOME_FEATURES,
    Hello,
    Refuse,
    Welcome,
)
from pydbt.core.protocol.generations import objection
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.keeper import Keeper
from pydbt.core.secondary.replica import ReplicaRecord


def trouble_refusal(trouble: str) -> Refuse:
    """While the target lacks something that it could not be written; ``trouble`` has the place."""
    return Refuse(
        TARGET_ERROR, f"{trouble}; it is tried again now and then, and no write can reach this replica until then"
    )


def restart_refusal(reason: str) -> Refuse:
    """While the secondary cannot begin again; waiting mends it once ``reason`` is mended."""
    return Refuse("restarting", f"the secondary cannot go on, and tries again: {reason}"[:MAX_TEXT])


def refusal(hello: Hello, record: ReplicaRecord, config: SecondaryConfig) -> Refuse | None:
    """Why this replica cannot serve that volume, None when it can. Each message is one whole sentence."""
    target_bytes = config.target_bytes
    if hello.protocol != PROTOCOL_VERSION:
        return Refuse(
            "protocol",
            f"the primary speaks protocol {hello.protocol}, this secondary {PROTOCOL_VERSION}: "
            "install the same version on both",
        )
    if record.volume is not None and record.volume != hello.volume:
        return Refuse(
            "other-volume",
            f"this secondary holds volume {record.volume}, not {hello.volume}: "
            "use its own primary, or give it another target and state directory",
        )
    if hello.size_bytes > target_bytes:
        return Refuse(
            "too-small",
            f"the target has {target_bytes} bytes and the volume {hello.size_bytes}: use a target of at least that size",
        )
    if config.sector_bytes > hello.sector_bytes and not config.accept_sectors:
        # A file system with smaller blocks does not mount there, XFS with smaller sectors neither; a GPT is not found.
        return Refuse(
            SECTOR_SIZE,
            f"the target has logical blocks of {config.sector_bytes} bytes and the source of {hello.sector_bytes}: "
            "most file systems and partition tables could not be used there; use a target whose logical blocks are no "
            "larger, an image file for example, or start the secondary with --accept-sectors",
        )
    if record.volume is not None and record.size_bytes != hello.size_bytes:
        return Refuse(
            "resized",
            f"the volume had {record.size_bytes} bytes when it was first replicated and has {hello.size_bytes} now: "
            "begin again with a new state directory on both sides",
        )
    if record.volume is not None and record.block_bytes != hello.block_bytes:
        return Refuse(
            "block-size",
            f"this replica was begun with blocks of {record.block_bytes} bytes, the primary uses {hello.block_bytes}: "
            "run it with the same --block-size",
        )
    if record.volume is not None and (found := objection(hello.generations, record.generations)):
        return Refuse(*found, record.divergence if SIDES in hello.features else None)
    return None


def welcome_of(
    hello: Hello, keeper: Keeper, config: SecondaryConfig, *, whole: bool, digest_key: bytes | None
) -> Welcome:
    """The answer to a primary that may come. ``whole``: the target has taken everything; ``digest_key``: of this connection."""
    record, asked = keeper.record, hello.features
    return Welcome(
        volume=record.volume,
        state="consistent" if record.consistent and whole else "inconsistent",
        epoch=keeper.epoch,
        sequence=keeper.sequence,
        staged=keeper.stage_from is not None,
        size_bytes=config.target_bytes,
        fresh=record.fresh,
        replica=record.replica,
        formerly=record.formerly if FORMERLY in asked else None,
        software=config.software,
        features=WELCOME_FEATURES,
        generations=record.generations,
        progress=keeper.progress if PROGRESS in asked else None,
        digest_key=digest_key.hex() if digest_key is not None else None,
        marks=keeper.marks.numbers if MARKS in asked else None,
    )
