"""What a side tells of its role, and what one that was promoted answers at the address where it was a replica.

It tells that and nothing else, and takes no write.
"""

from __future__ import annotations

from pydbt.core.protocol.frames import SUPERSEDED, Hello, Refuse
from pydbt.core.protocol.role import ASKS_ROLE, PROMOTED, REPLICA, Role
from pydbt.core.secondary import events as e
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handshake import refusal
from pydbt.core.secondary.promotion import superseded_words
from pydbt.core.secondary.replica import ReplicaRecord


def role_of(record: ReplicaRecord, epoch: int, sequence: int) -> Role:
    """The answer to a question for the role; the image is at ``sequence`` of ``epoch``."""
    return Role(
        role=PROMOTED if record.promoted else REPLICA,
        since=record.promoted,
        replica=record.replica,
        formerly=record.formerly,
        generations=record.generations,
        epoch=epoch,
        sequence=sequence,
    )


def told_to_a_gate(connection: int, record: ReplicaRecord, epoch: int, sequence: int) -> list[e.Effect]:
    """To a primary that asks before it mounts, and may write from then on. That it asked is written down first."""
    return [
        e.KeepGateQuestion(open=True),
        e.Send(connection, role_of(record, epoch, sequence)),
        e.CloseConnection(connection, "its question is answered"),
    ]


def answer_of_promoted(hello: Hello, record: ReplicaRecord, host: str, *, proven: bool) -> Role | Refuse:
    """The one frame that a primary gets from the side ``host`` that was promoted.

    ``proven``: the primary has proved who it is; one that has not learns no more than the code of a refusal.
    """
    if hello.volume != record.volume:
        refuse = Refuse("other-volume", "this is not a replica of that volume")
    elif ASKS_ROLE in hello.features:
        return role_of(record, record.epoch, record.sequence)
    else:
        refuse = Refuse(SUPERSEDED, superseded_words(host, record.promoted))
    return refuse if proven else Refuse(refuse.code, "")


def answer_in_trouble(
    hello: Hello, record: ReplicaRecord, config: SecondaryConfig, trouble: Refuse, *, proven: bool
) -> Role | Refuse:
    """The one frame that a primary gets while no write can be taken, for the reason ``trouble``.

    Whoever asks for the role is told it, or refused, by the same rules as without trouble: what is wrong with a disk says
    nothing of the role. ``proven`` as above.
    """
    refuse = refusal(hello, record, config)
    if ASKS_ROLE in hello.features:
        if refuse is None:
            return role_of(record, record.epoch, record.sequence)
        return refuse if proven else Refuse(refuse.code, "")
    return Refuse(trouble.code, "") if refuse is not None and not proven else trouble
