"""Partition values in folder names, `column=value/`, in the widely read format of Hive."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
_UNESCAPED: Final = " +,;@()!~$&'"


def folder_of(values: dict[str, str | None]) -> str:
    """The folder of these values, one below the other."""
    return "/".join(f"{_escaped(key)}={_NULL if value is None else _escaped(value)}" for key, value in values.items())


def values_of(name: str) -> dict[str, str | None]:
    """The partition values in the folders of a file's name."""
    folders = [folder.split("=", 1) for folder in name.split("/")[:-1] if "=" in folder]
    return {unquote(key): None if value == _NULL else unquote(value) for key, value in folders}


def _escaped(text: str) -> str:
    return quote(text, safe=_UNESCAPED)
