"""Refusals of a handshake: the words of a code that came alone, and which replica may answer."""

from __future__ import annotations

from collections.abc import Collection

from pydbt.core.protocol.frames import SECOND_PRIMARY, SECTOR_SIZE, SUPERSEDED

# A secondary tells a primary that has proved nothing (plain TCP) no more than the code. The evidence is in its own log.
_WORDS = {
    SUPERSEDED: "its replica was promoted, and is the volume now: stop the programs that write here, and make this side the "
    "replica with 'controller demote'",
    "protocol": "it speaks another version of the protocol: install the same version on both",
    "other-volume": "it holds another volume: use its own primary, or give it another target and state directory",
    "too-small": "its target is smaller than the volume: use a target of at least that size",
    SECTOR_SIZE: "its target has larger logical blocks than the source, so that most file systems could not be used there: use "
    "another target, an image file for example, or start it with --accept-sectors",
    SECOND_PRIMARY: "another running primary of this volume is connected to it: two machines have the same volume and state, "
    "as a copy of a virtual machine does; stop one of them",
    "resized": "the volume had another size when it was first replicated: begin again with a new state directory on both sides",
    "block-size": "its replica was begun with blocks of another size: run with that --block-size",
    "newer": "it is newer: it was promoted, or this is an earlier state of the primary; make this side the secondary with "
    "'controller demote', or give up what is there with 'controller invalidate' there",
    "split-brain": "split brain, both sides were written since they were last the same: choose one whose changes are lost, "
    "'controller demote' it if it is a primary, and 'controller invalidate' it",
    "restarting": "its state or journal cannot be written or read, and it starts again now and then",
    "unrelated": "both name the same volume and have no generation in common: if the secondary's content may be lost, "
    "'controller invalidate' it",
}

FATAL_REFUSALS = frozenset(
    {
        "other-volume",
        "too-small",
        SECTOR_SIZE,
        "resized",
        "block-size",
        "protocol",
        "newer",
        "split-brain",
        "unrelated",
        SUPERSEDED,
    }
)
"""Refusals that no waiting mends: nothing is sent there until a person has done something."""


def refusal_words(code: str) -> str:
    """The sentence of a refusal that came without one; the log of the secondary has the evidence."""
    return f"{_WORDS.get(code, code)} (its log says more)"


def is_expected(expected: str, replica: str, formerly: Collection[str]) -> bool:
    """Whether the replica that answers may be written to. ``expected``: the name on record, empty before there is one.

    A replica that found its journal damaged or its target changed, or was invalidated, has taken another name, so that all of it
    is compared, and tells the earlier one.
    That a stranger cannot do: the name is known to both sides alone.
    """
    return not expected or replica == expected or expected in formerly
