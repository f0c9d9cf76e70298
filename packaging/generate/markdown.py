"""From a section of our documents to a man page: paragraphs, lists, tables of two columns, and lines to type."""

from __future__ import annotations

import re

from generate.roff import Page


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level. KeyError when there is none."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(heading)
    return found[1]


_REFERENCE = re.compile(r"\s*\(\[[^\]]+\]\([^)]+\)\)")


def write(page: Page, text: str) -> None:
    """Write blocks, which empty lines part, to a page. A link in parentheses is left out: it leads to another document."""
    text = _REFERENCE.sub("", text)
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = [line for line in block.splitlines() if not line.startswith("<!--")]
        if not lines:
            continue
        if all(line.startswith("    ") for line in lines):
            page.code([line[4:] for line in lines])
        elif lines[0].startswith("|"):
            _write_table(page, lines)
        elif lines[0].startswith("- "):
            for entry in re.split(r"\n(?=- )", "\n".join(lines)):
                page.bullet(" ".join(entry.removeprefix("- ").split()))
        else:
            page.paragraph(" ".join(" ".join(lines).split()))


def _write_table(page: Page, lines: list[str]) -> None:
    for line in lines[2:]:
        first, second = (cell.strip() for cell in line.strip("|").split("|"))
        page.item(first, second)
