"""The options of a command in sections of its help, where they are too many for one list."""

from __future__ import annotations

from typing import Any

import click

_REST = "Other options"


class SectionedCommand(click.Command):
    """``sections``: headings with the long names of their options, without dashes; none for one list."""

    def __init__(self, *arguments: Any, sections: dict[str, tuple[str, ...]], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.sections:
            super().format_options(ctx, formatter)
            return
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self.sections, _REST)}
        headings = {f"--{name}": heading for heading, names in self.sections.items() for name in names}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows[headings.get(max(parameter.opts, key=len), _REST)].append(row)
        for heading, written in rows.items():
            if written:
                with formatter.section(heading):
                    formatter.write_dl(written)
