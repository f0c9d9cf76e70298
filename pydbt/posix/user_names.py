"""What this machine calls its own users: /etc/passwd alone, because a directory service (LDAP, for example) may not answer."""

from __future__ import annotations

from pathlib import Path

_PASSWD = Path("/etc/passwd")
_FILE_BYTES_MAX = 1 << 20


def user_names(passwd: Path = _PASSWD) -> dict[int, bytes]:
    """By number; of two names of one number the first. Nothing where the file cannot be read."""
    try:
        with passwd.open("rb") as file:
            lines = file.read(_FILE_BYTES_MAX).splitlines()
    except OSError:
        return {}
    found: dict[int, bytes] = {}
    for line in lines:
        name, *others = line.split(b":")
        if len(others) >= 2 and others[1].isdigit():
            found.setdefault(int(others[1]), name)
    return found
