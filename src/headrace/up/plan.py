"""What a settings file asks for: its services, each with the settings that its own command would have.

A plan is made whole or not at all, so that a file that is wrong changes nothing. Two plans are compared service by service:
that is what a reload does.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.broker_settings import BrokerSettings
from headrace.native.endpoint import SOCKET_NAME
from headrace.settings import CONFIG_VARIABLE, Resolved, SettingsError, flag_of, resolve, variable_of
from headrace.settings_file import SERVICE_VARIABLE, find_file, names_of, read
from headrace.up.sections import SECTIONS, Section, load
from headrace.up_settings import UpSettings

BROKER_VARIABLE: Final = "HEADRACE_BROKER"
SOCKET_BYTES_MAX: Final = 100
"""The system takes about as many in the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process to run."""

    name: str
    """`web`, or `web.shop` for a table with a name."""
    section: str
    settings: Any
    environ: Mapping[str, str] = field(repr=False)
    """The whole environment of its process."""
    content: str = ""
    """Of the file that it reads at its start, as a hash."""

    @property
    def rules(self) -> Section:
        return SECTIONS[self.section]

    def changes(self, newer: Service) -> set[str]:
        """The names of the settings that differ; `environ` and `content` are names, too."""
        names = {name for name in self.settings.__struct_fields__ if _differs(self.settings, newer.settings, name)}
        names |= {"environ"} if self.environ != newer.environ else set()
        return names | ({"content"} if self.content != newer.content else set())


@dataclass(frozen=True, slots=True)
class Plan:
    file: Path
    up: UpSettings
    services: tuple[Service, ...]
    """In the order of SECTIONS, then of the file."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The broker of the file: its folder, and the address that the other services are given."""

    data: Path
    url: str

    def is_named_by(self, broker: str) -> bool:
        return "://" not in broker and Path(broker).expanduser().absolute() == self.data


def make_plan(
    *, environ: Mapping[str, str], folder: Path, config: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Plan:
    """Read the settings file.

    Args:
        environ: the environment; services inherit it.
        folder: where the file is looked for, as every command does.
        config: the file to read instead.
        flags: of `headrace up` itself.

    Raises:
        SettingsError: there is no file, it asks for nothing, or a service of it cannot run as it is set.
    """
    file = find_file(folder, config, environ)
    if file is None:
        raise SettingsError(str(folder / "headrace.toml"), "there is no such file; `headrace init` writes one")
    environ = {name: value for name, value in environ.items() if name != SERVICE_VARIABLE}
    environ[CONFIG_VARIABLE] = str(file.absolute())
    up = resolve(UpSettings, "up", flags=flags or {}, environ=environ, folder=folder, config=file).settings
    tables = read(file)
    names = [(section, name) for section in SECTIONS for name in _parts_of(tables, section, file)]
    if not names:
        raise SettingsError(str(file), f"names nothing to run: there is none of {', '.join(map(_table, SECTIONS))}")
    target = _broker_target(environ, folder, file) if "broker" in tables else None
    services = tuple(
        _service(section, name, _environ(section, name, environ, folder, target)) for section, name in names
    )
    return Plan(file, up, services)


def _table(section: str) -> str:
    return f"[{section}]"


def _parts_of(tables: Mapping[str, Any], section: str, file: Path) -> list[str]:
    """Names of services: those of its tables with names; else the section itself, if it says enough to run."""
    rules = SECTIONS[section]
    if section not in tables:
        return []
    names = names_of(tables, section, rules.kind().__struct_fields__)
    if names and not rules.several:
        raise SettingsError(f"{file}: [{section}.{names[0]}]", f"there is one {section} only: write [{section}]")
    if names:
        return [f"{section}.{name}" for name in names]
    only_defaults = section == "stream" and "file" not in tables[section]
    return [] if only_defaults else [section]


def _broker_target(environ: Mapping[str, str], folder: Path, file: Path) -> _Target:
    """How the other services reach the broker of this file: by its socket, which asks for no key.

    Raises: SettingsError: its folder's path is too long for a socket.
    """
    found = resolve(BrokerSettings, "broker", flags={}, environ=environ, folder=folder, config=file)
    data = found.settings.data.absolute()
    path = data / SOCKET_NAME
    if len(os.fsencode(path)) > SOCKET_BYTES_MAX:
        place = flag_of("data") if found.origins["data"] == "default" else found.origins["data"]
        reason = f"{path} has {len(os.fsencode(path))} bytes; a Unix socket's path may have {SOCKET_BYTES_MAX}"
        raise SettingsError(place, f"{reason}: choose a shorter one")
    return _Target(data, f"unix://{path}")


def _environ(
    section: str, name: str, environ: Mapping[str, str], folder: Path, target: _Target | None
) -> dict[str, str]:
    """What the service's process is given: which service it is, and where the broker is.

    A service that names no broker uses that of the file; so does one that names its folder.
    """
    own = dict(environ)
    if name != section:
        own[SERVICE_VARIABLE] = name
    found = _resolve(section, own, folder)
    broker = target.url if target is not None else None
    if "broker" in found.origins:
        if found.origins["broker"] != "default":
            named = str(found.settings.broker)
            broker = target.url if target is not None and target.is_named_by(named) else named
        if broker is not None:  # one variable is for all commands, one for this: which of the two wins differs
            own[variable_of(section, "broker")] = broker
    if broker is not None:
        own[BROKER_VARIABLE] = broker
    return own


def _resolve(section: str, environ: Mapping[str, str], folder: Path) -> Resolved[Any]:
    """As its command does: the file is named in the environment."""
    return resolve(SECTIONS[section].kind(), section, flags={}, environ=environ, folder=folder)


def _service(section: str, name: str, environ: Mapping[str, str]) -> Service:
    """Raises: SettingsError: it cannot run as it is set."""
    rules = SECTIONS[section]
    found = _resolve(section, environ, Path())
    if rules.required and not getattr(found.settings, rules.required):
        raise SettingsError(f"{environ[CONFIG_VARIABLE]}: [{name}]", f"{rules.required} is missing")
    if rules.check:
        check = load(rules.check)
        check(*(found.settings, found.origins)[: len(inspect.signature(check).parameters)])
    return Service(name, section, found.settings, environ, _content(found.settings, rules))


def _content(settings: Any, rules: Section) -> str:
    if not rules.reads:
        return ""
    place = str(getattr(settings, rules.reads))
    head, colon, _ = place.rpartition(":")
    path = Path(head if colon and not Path(place).is_file() else place)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SettingsError(place, f"cannot be read: {error.strerror}") from None


def _differs(one: msgspec.Struct, other: msgspec.Struct, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
