"""Options that are decisions for once: they are typed when they are meant, and may not stand in a settings file."""

from __future__ import annotations

import click
from click.core import ParameterSource


class OnceOption(click.Option):
    """An option that would be another decision if it were repeated at each start: it is taken from the command line alone."""


def was_typed(name: str) -> bool:
    """Whether the parameter ``name`` of the command under way was typed, and not taken from a settings file."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
