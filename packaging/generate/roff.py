"""A man page in the macros of man(7): every text is escaped, so that what is read is what was written."""

from __future__ import annotations

import re
import textwrap

WIDTH = 78  # mandoc wants no longer line
# A plain hyphen may be broken and copied as another character; the others stand for accents in roff (groff_char(7)).
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\([^)\s]+\)")


def escape(text: str) -> str:
    """A text in which roff sees nothing but characters."""
    return "".join(_ESCAPES.get(one) or (one if one.isascii() else rf"\[u{ord(one):04X}]") for one in text)


def marked(text: str) -> str:
    """A text with the marks of our help and documents: `code` and **bold** in bold, *emphasis* in italics, links as words."""
    parts, end = [], 0
    for found in _MARKED.finditer(text):
        parts.append(escape(text[end : found.start()]))
        code, bold, emphasis, link = found.groups()
        if link is not None:
            parts.append(marked(link))
        elif emphasis is not None:
            parts.append(rf"\fI{escape(emphasis)}\fR")
        else:
            parts.append(rf"\fB{escape(code or bold)}\fR")
        end = found.end()
    return "".join([*parts, escape(text[end:])])


def _quoted(text: str) -> str:
    """The argument of a macro."""
    return '"' + text.replace('"', r"\(dq") + '"'


def _lines(text: str) -> list[str]:
    """Wrapped; a line that begins with a dot would be a macro."""
    wrapped = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line[0] in ".'" else line for line in wrapped]


class Page:
    """A page, from its title on. ``date`` is that of the release, so that the same source makes the same page."""

    def __init__(self, name: str, section: int, date: str, source: str) -> None:
        self.name, self.section = name, section
        self._written = [f'.TH "{name.upper()}" {section} {date} "{source}" "pydbt"']

    @property
    def file_name(self) -> str:
        return f"{self.name}.{self.section}"

    def heading(self, words: str) -> None:
        self._written.append(f".SH {_quoted(escape(words.upper()))}")

    def subheading(self, words: str) -> None:
        self._written.append(f".SS {_quoted(marked(words))}")

    def one_line(self, text: str) -> None:
        """A line that whatis(1) and the like read: it is not wrapped, and its hyphen is a plain one."""
        self._written.append(text)

    def paragraph(self, text: str) -> None:
        self._written += [".PP", *_lines(marked(text))] if not self._begins() else _lines(marked(text))

    def item(self, term: str, text: str) -> None:
        self._written += [".TP", marked(term), *_lines(marked(text))]

    def bullet(self, text: str) -> None:
        self._written += [r".IP \(bu 3", *_lines(marked(text))]

    def code(self, lines: list[str]) -> None:
        escaped = [escape(line) for line in lines]
        text = [rf"\&{line}" if line[:1] in (".", "'") else line for line in escaped]
        self._written += [".PP"] if not self._begins() else []
        self._written += [".nf", ".RS 4", *text, ".RE", ".fi"]

    def synopsis(self, lines: list[str]) -> None:
        """Each is a line of its own."""
        for number, line in enumerate(lines):
            self._written += [*([".br"] if number else []), *_lines(marked(line))]

    def _begins(self) -> bool:
        """Whether the last line is a heading, behind which mandoc wants no paragraph macro."""
        return self._written[-1].startswith((".SH", ".SS"))

    def text(self) -> str:
        return "\n".join(self._written) + "\n"
