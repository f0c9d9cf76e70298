"""Every error that a person can meet, by the side that is wrong, each with the exit code of the command.

Each message is one sentence: the fault, the expectation, and the way out.
Exit codes are documented in docs/reference/exit-codes.md; a bug (an assertion) is the only thing that shows a traceback.
"""

from __future__ import annotations


class PydbtError(Exception):
    """Base of every expected failure. The command returns ``exit_code``."""

    exit_code = 1


class UsageError(PydbtError):
    """The operator asked for something that cannot be: wrong device, wrong option, wrong order."""

    exit_code = 2


class NotThere(UsageError):
    """There is no such device, or nothing in it."""


class MachineError(PydbtError):
    """This machine lacks something: privilege, BTF, kernel headers, bpffs."""

    exit_code = 3


class BusyError(PydbtError):
    """Something is in use already: a port, a volume, a target, a state directory."""

    exit_code = 4


class ShortNow(BusyError):
    """This machine has too little memory or time for it now: later it may have more."""


class PeerError(PydbtError):
    """The peer is unreachable, speaks something else, or refused."""

    exit_code = 5


class Unreachable(PeerError):
    """Nobody answers at the address of the peer: it may be started later."""


class NoAnswer(PeerError):
    """The connection was accepted, and no answer came: the secondary starts or hangs, or a proxy has no secondary behind it."""


class DeviceError(PydbtError):
    """A disk failed, vanished or changed its size."""

    exit_code = 6


class TargetChanged(DeviceError):
    """Another program changed the target of a replica."""


class MediumError(DeviceError):
    """Some sectors of a disk cannot be read, or written; others may be."""


class StateError(PydbtError):
    """A state file or journal is torn, foreign, or cannot be written."""

    exit_code = 7


class WireError(PeerError):
    """Bytes from the network that are no frame of this protocol."""


class TimedOut(PydbtError):
    """A wait ended before its condition came true."""

    exit_code = 8


# The command line's own.


class NotRunning(PydbtError):
    """A command was sent to a controller that is not there."""

    exit_code = 9


class Differs(PydbtError):
    """A verification found blocks that differ."""

    exit_code = 10


class Superseded(PydbtError):
    """A volume must not be mounted here: another side has become the volume, or this side is a replica."""

    exit_code = 12


class OutputError(PydbtError):
    """The output of a command cannot be written: the disk of its file is full."""

    exit_code = 11
