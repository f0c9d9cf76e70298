"""A command that runs a primary or a secondary: its parameters are also the keys of a file of a volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pydbt.cli.once import OnceOption
from pydbt.cli.sections import SectionedCommand
from pydbt.controller.options import PrimaryOptions, SecondaryOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])


class RoleCommand(SectionedCommand):
    """``options`` makes the options of the service of the values of the parameters."""

    def __init__(
        self, *arguments: Any, options: Callable[[dict[str, Any]], PrimaryOptions | SecondaryOptions], **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._options = options

    def options_of(self, values: dict[str, Any]) -> PrimaryOptions | SecondaryOptions:
        """Of the values of a file, as click takes them. OptionsRefused and other UsageErrors."""
        context = self.make_context(self.name, [], default_map=values)
        return self._options(context.params)


def fixed_role_option(command: _Command) -> _Command:
    """Decorate a command of a role with ``--fixed-role``."""
    return click.option(
        "--fixed-role",
        cls=OnceOption,
        is_flag=True,
        expose_value=False,
        help="Take no other role: not at the start, by the state, nor after a promotion.",
    )(command)


def require_given(context: click.Context, *names: str) -> None:
    """The message of click for a parameter that is needed when one volume is named on the command line."""
    for parameter in context.command.params:
        if parameter.name in names and context.params.get(parameter.name) in (None, ()):
            raise click.MissingParameter(ctx=context, param=parameter)
