"""A flag for each setting of a command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from headrace.settings import Setting, describe

Command = TypeVar("Command", bound=Callable[..., Any])


def setting_options(
    kind: type[msgspec.Struct],
    section: str,
    *,
    without: Collection[str] = (),
    short: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Command], Command]:
    """Flags for all settings of a section. Values stay text: `settings.resolve` checks them, wherever they come from.

    Args:
        without: names that the command takes in another way.
        short: more names of flags, by setting.
    """

    def decorate(command: Command) -> Command:
        for setting in reversed(describe(kind, section)):
            if setting.name not in without and not setting.tables:
                command = _option(setting, (short or {}).get(setting.name, ()))(command)
        return command

    return decorate


def _option(setting: Setting, more: Sequence[str]) -> Callable[[Command], Command]:
    text = f"{setting.help}  [{setting.variable}]"
    names = (*more, setting.flag, setting.name)
    if setting.switch:
        return click.option(*names, is_flag=True, default=None, help=text)
    default = f"  [default: {setting.default}]" if setting.default else ""
    choices = click.Choice(setting.kind.split("|")) if "|" in setting.kind else click.STRING
    metavar = None if "|" in setting.kind else setting.kind.upper()
    return click.option(
        *names, type=choices, metavar=metavar, multiple=setting.repeated, default=None, help=text + default
    )
