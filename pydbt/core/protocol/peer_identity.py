"""Which machine, of those that have proved name and key, may be the peer of a volume; and what another one is told."""

from __future__ import annotations

from dataclasses import dataclass

REVOKED, OTHER_NAME, OTHER_KEY, SAME_IDENTITY = "revoked", "other-name", "other-key", "same-identity"
IDENTITY_REFUSALS = frozenset({REVOKED, OTHER_NAME, OTHER_KEY, SAME_IDENTITY})
"""Codes of a REFUSE that speaks of the identity of the side that receives it. Either side sends it as its first frame."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A name and the fingerprint of a key, as a certificate has them; empty where nothing is known."""

    name: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class PeerObjection:
    """The reason why a machine is turned away: ``why`` for the operator of this side, ``told`` for the machine itself.

    ``told`` names nobody else: whoever holds an identity of the same authority, a stolen one perhaps, learns no more from it
    than that it is not the peer.
    """

    code: str
    why: str
    told: str


def objection_to(proved: Machine, pinned: Machine, given: str = "", *, any_key: bool = False) -> PeerObjection | None:
    """The objection to a machine, None when it may be the peer.

    ``pinned`` is the machine that was accepted before. ``given`` is a name that the operator gives, which overrides the
    pinned one; with ``any_key`` a machine of that name may have another key than the pinned one.
    """
    name = proved.name
    expected = given or pinned.name
    if expected and name != expected:
        return PeerObjection(
            OTHER_NAME,
            f"it proves to be {name!r}, and this volume belongs with {expected!r}: "
            f"if the other machine has changed, add --peer {name} once",
            f"it belongs with another machine than {name!r}: if {name} has taken the place of that one, start it once with "
            f"--peer {name}",
        )
    knows_key = name == pinned.name and pinned.key and not (given and any_key)
    if knows_key and proved.key != pinned.key:
        return PeerObjection(
            OTHER_KEY,
            f"it proves to be {name!r} with another key than before: if its identity was issued anew with a new key, add "
            f"--peer {name} once",
            f"it knows {name!r} with another key: if the identity of {name} was issued anew with a new key, start it once with "
            f"--peer {name}",
        )
    return None


def objection_to_revoked(proved: Machine) -> PeerObjection:
    """To a machine whose key is revoked."""
    return PeerObjection(
        REVOKED,
        f"the key of {proved.name!r} was revoked ({proved.key}): issue it another identity",
        f"the key of {proved.name!r} is revoked there: issue it another identity with 'controller pki issue --replace'",
    )


def objection_to_twin(proved: Machine) -> PeerObjection:
    """To a machine that has this machine's own identity."""
    words = (
        f"it has the same identity as this machine, {proved.name}: every machine has its own ('controller pki issue')"
    )
    return PeerObjection(SAME_IDENTITY, words, words)
