"""`headrace.toml`: where it is, and which of its tables is meant.

A table is named for a command: `[web]`. A command that runs several times has tables with names, `[web.shop]`: each is
a *service*, which inherits what `[web]` says and is the one that is read if `HEADRACE_SERVICE=web.shop`. `headrace up` starts
every service so; by hand it works alike.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.errors import CallerError

SECTIONS: Final = ("broker", "web", "worker", "stream", "console", "up")
"""The tables that a file may have: one a command."""

CONFIG_VARIABLE: Final = "HEADRACE_CONFIG"
SERVICE_VARIABLE: Final = "HEADRACE_SERVICE"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(eq=False)
class SettingsError(CallerError):
    """A setting cannot be used. `place` is where it was written: the flag, the variable, the file and key."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def unknown(place: str, what: str, name: str, known: Iterable[str]) -> SettingsError:
    """There is no such name; perhaps a near one was meant."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return SettingsError(place, f"there is no {what} {name!r}; {hint}")


def find_file(folder: Path, config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one named, or `headrace.toml`, or `pyproject.toml` in the folder."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named
    own, project = folder / "headrace.toml", folder / "pyproject.toml"
    return own if own.is_file() else project if project.is_file() else None


def read(file: Path) -> dict[str, Any]:
    """Its tables, by section. Raises: SettingsError: it cannot be read, is no TOML, or has an unknown section."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(str(file), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(str(file), f"is not TOML: {error}") from None
    tables: dict[str, Any] = content.get("tool", {}).get("headrace", {}) if file.name == "pyproject.toml" else content
    for name, table in tables.items():
        if name not in SECTIONS:
            raise unknown(str(file), "table", name, SECTIONS)
        if not isinstance(table, dict):
            raise SettingsError(f"{file}: {name}", "must be a table")
    return tables


def names_of(tables: Mapping[str, Any], section: str, fields: Iterable[str]) -> list[str]:
    """The names of the section's services, in the order of the file; empty if it has none, or is not there.

    Args: fields: of the section's settings; a table that is none of them is a service.
    """
    known = {field.replace("-", "_") for field in fields}
    table: Mapping[str, Any] = tables.get(section, {})
    return [key for key, value in table.items() if isinstance(value, dict) and key.replace("-", "_") not in known]


def entries(file: Path, section: str, fields: Iterable[str], environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Key → (where it is written, raw value), of the section, or of the service that HEADRACE_SERVICE names.

    Raises: SettingsError: the file cannot be used, or has no such service.
    """
    tables = read(file)
    names = names_of(tables, section, fields)
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise SettingsError(f"{file}: [{section}.{name}]", "a name is up to 64 letters, digits, - and _")
    table = tables.get(section, {})
    found = {key: (f"{file}: {section}.{key}", raw) for key, raw in table.items() if key not in names}
    service_section, _, service = environ.get(SERVICE_VARIABLE, "").partition(".")
    if service_section == section and service:
        if service not in names:
            raise SettingsError(f"{SERVICE_VARIABLE}={section}.{service}", f"{file} has no table [{section}.{service}]")
        found |= {key: (f"{file}: {section}.{service}.{key}", raw) for key, raw in table[service].items()}
    return found
