"""The token that lets somebody read: made anew at each start, or kept in a file that only root may read."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stat
from pathlib import Path

from pydbt.core.errors import StateError, UsageError
from pydbt.posix.ownership import Unsafe, file_intruder, read_safely

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_~.+/=-]{16,512}")


class Token:
    """Compared in constant time. The cookie has a value of its own, from which the token cannot be made."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.cookie = hmac.new(text.encode(), b"pydbt dashboard cookie", hashlib.sha256).hexdigest()

    def is_told_by(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self.text.encode())

    def is_in_cookie(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(errors="replace"), self.cookie.encode())


def new_token() -> Token:
    return Token(secrets.token_urlsafe(TOKEN_BYTES))


def token_of_file(path: Path) -> Token:
    """The token in a file, which is made with a new one if it is not there. UsageError for one that others may read or change."""
    if not path.exists():
        _make(path)
    try:
        text, status = read_safely(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except Unsafe as error:
        raise UsageError(f"the token file {path} is not safe from other users: {error}") from None
    token = text.strip()
    if not _TOKEN.fullmatch(token):  # first: whatever else it is, nothing of it is to be changed or removed
        raise UsageError(
            f"{path} holds no token, which is one line of 16 to 512 letters, digits and -_~.+/=: name another file; one that is "
            "not there is made, with a new token"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(
            f"the token file {path} can be read by other users: run chmod 600 {path}, and put a new token into it"
        )
    if wrong := file_intruder(path, status):
        raise UsageError(f"the token file {path} is not safe from other users: {wrong}")
    return Token(token)


def _make(path: Path) -> None:
    """Whole, or not at all; with mode 0600."""
    from pydbt.posix.atomic import replace_file

    try:
        replace_file(path, f"{new_token().text}\n".encode())
    except (OSError, StateError) as error:
        raise UsageError(f"the token file {path} is not there and cannot be made: {error}") from None
