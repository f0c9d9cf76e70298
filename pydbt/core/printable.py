"""Text of others on a terminal or in a log: no character of it moves the cursor, ends a line, or changes the order of others."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every character that is not printable as an escape (``\\x1b``): one line, of what is seen and no more.

    That covers control characters, line separators, marks of direction, and halves of surrogate pairs, which no encoding takes.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(ord(one)) for one in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
