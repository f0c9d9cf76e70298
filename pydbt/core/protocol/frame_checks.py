"""Names, and checks of fields, that frames and state files share. Each check raises ValueError."""

from __future__ import annotations

MAX_TEXT = 4096
MAX_FEATURES = 64
MAX_U64 = (1 << 64) - 1
REPLICA_STATE_NAMES = ("inconsistent", "outdated", "consistent", "up-to-date")
"""The states of a replica by their code in an ACK frame; each claims more than the one before it."""
FORMER_NAMES = 8
"""Earlier names of a replica that are kept: each stands for a journal that was found damaged."""


class NewerVersion(ValueError):
    """A file has version ``found``, and this program knows versions up to ``known``."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"its version is {found}, and this program knows versions up to {known}")
        self.found, self.known = found, known


def check_version(found: object, known: int) -> int:
    """The version of a file that may be read. NewerVersion, or ValueError when it is no version at all."""
    if type(found) is not int or found < 1:
        raise ValueError(f"its version is {found!r}, and this program knows versions 1 to {known}")
    if found > known:
        raise NewerVersion(found, known)
    return found


def check_u64(name: str, value: int) -> None:
    if type(value) is not int or not 0 <= value <= MAX_U64:
        raise ValueError(f"{name} {value!r} is not a number of 64 bits")


def check_text(name: str, value: str, limit: int = MAX_TEXT) -> None:
    if type(value) is not str or len(value) > limit:
        raise ValueError(f"{name} is not a text of at most {limit} characters")


def check_volume(value: str) -> None:
    if type(value) is not str or len(value) != 32 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"a volume is named by 32 hexadecimal digits, not {value!r:.80}")


def check_features(features: tuple[str, ...]) -> None:
    if len(features) > MAX_FEATURES:
        raise ValueError(f"more than {MAX_FEATURES} features")
    for feature in features:
        check_text("feature", feature, 64)


def check_key(name: str, value: str, size_bytes: int) -> None:
    """A secret as hexadecimal digits; the message does not repeat it."""
    if type(value) is not str or len(value) != 2 * size_bytes or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{name} is not a key of {2 * size_bytes} hexadecimal digits")
