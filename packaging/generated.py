#!/usr/bin/env python3
"""Writes what a package installs beside the program, from the program's texts.

    packaging/generated.py FOLDER
    packaging/generated.py --documents    # the tables of docs/reference/configuration.md, in place

FOLDER/man/*.5 and *.8         man pages; pydbt.8 leads to controller.8
FOLDER/bash/controller         completion for bash; pydbt is a link
FOLDER/zsh/_controller         completion for zsh, for both names of the command
FOLDER/fish/controller.fish    completion for fish, and pydbt.fish

It needs the libraries of the program alone, and neither root nor a network. The same source writes the same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "packaging")]

from generate import bash, fish, zsh  # noqa: E402
from generate.man import pages  # noqa: E402
from generate.model import OTHER_NAME, PROGRAM  # noqa: E402
from generate.reference import CONFIGURATION, with_tables  # noqa: E402


def files() -> dict[str, str]:
    """Every file by its place in the folder."""
    made = {f"man/{page.file_name}": page.text() for page in pages()}
    made[f"man/{OTHER_NAME}.8"] = f".so man8/{PROGRAM}.8\n"  # Debian's dh_installman makes a link of it
    made[f"bash/{PROGRAM}"] = bash.script()
    made[f"zsh/_{PROGRAM}"] = zsh.script()
    made |= {f"fish/{PROGRAM}.fish": fish.script(), f"fish/{OTHER_NAME}.fish": fish.other_script()}
    return made


# Links, and the file beside them that they lead to.
LINKS = {f"bash/{OTHER_NAME}": PROGRAM}


def main(arguments: list[str]) -> int:
    if arguments == ["--documents"]:
        CONFIGURATION.write_text(with_tables(CONFIGURATION.read_text()))
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stdout if {"-h", "--help"} & set(arguments) else sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    for name, text in files().items():
        path = Path(arguments[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, target in LINKS.items():
        link = Path(arguments[0]) / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
