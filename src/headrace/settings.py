"""Settings: flags > environment > file > defaults. Read once, checked, frozen, passed down.

A command declares its settings as one frozen `msgspec.Struct`, the command's name is their *section*, and everything
else follows from it: a field `drain` of section `broker` is the flag `--drain`, the variable `HEADRACE_BROKER__DRAIN`
and the key `drain` of table `[broker]` in `headrace.toml` (or `[tool.headrace.broker]` in `pyproject.toml`;
`headrace.settings_file` reads them). `describe` lists them for help texts and for the documentation's test.

Whatever is unknown or unfit is an error that names its place; nothing is guessed.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from headrace.settings_file import CONFIG_VARIABLE, SECTIONS, SettingsError, entries, find_file, unknown

__all__ = [
    "CONFIG_VARIABLE",
    "SECTIONS",
    "Duration",
    "Resolved",
    "Setting",
    "SettingsError",
    "Size",
    "describe",
    "dump",
    "flag_of",
    "load",
    "parse_duration",
    "parse_size",
    "resolve",
    "setting",
    "variable_of",
]

_UNITS_BYTES: Final = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_BOOLEANS: Final = {
    "on": True,
    "yes": True,
    "true": True,
    "1": True,
    "off": False,
    "no": False,
    "false": False,
    "0": False,
}

T = TypeVar("T", bound=msgspec.Struct)


class Size(int):
    """Bytes. Written as a number or with a unit: `65536`, `"64KiB"`, `"1MB"`."""


class Duration(float):
    """Seconds. Written as a number or with a unit: `1.5`, `"250ms"`, `"30s"`, `"7d"`."""


@dataclass(frozen=True, slots=True)
class Resolved(Generic[T]):
    """Settings, and for each field where its value was written (`default` if nowhere)."""

    settings: T
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as help and documentation show it."""

    name: str
    flag: str
    variable: str
    kind: str
    """What may be written: `text`, `a|b`, `on|off`, `size`, …"""
    default: str
    help: str
    switch: bool
    """A flag without a value."""
    repeated: bool
    """May be given several times; a comma separates the values in the environment."""
    tables: bool = False
    """Several tables of a file, `[[section.name]]`: no flag; JSON in the environment."""


def setting(help_text: str, *, switch: bool = False, relative: bool = False, **bounds: Any) -> msgspec.Meta:
    """The annotation of a field: its help text, whether its flag takes no value, its bounds (`ge`, `le`, `pattern`).

    `relative`: a text that, in a file, is a path relative to it, as every `Path` is.
    """
    return msgspec.Meta(description=help_text, extra={"switch": switch, "relative": relative}, **bounds)


def describe(kind: type[T], section: str) -> tuple[Setting, ...]:
    """Every setting of a section, in the order of its declaration."""
    return tuple(_describe(field, section) for field in msgspec.structs.fields(kind))


def resolve(
    kind: type[T],
    section: str,
    *,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    folder: Path,
    config: Path | None = None,
) -> Resolved[T]:
    """The settings of a command.

    Args:
        kind: their Struct; a field's default is the setting's.
        section: the command's name, one of `SECTIONS`.
        flags: what the command line gave, by field name; None and empty tuples were not given.
        environ: the environment.
        folder: where `headrace.toml` and `pyproject.toml` are looked for.
        config: the file to read instead; it must exist. None: what `HEADRACE_CONFIG` names, if anything.

    Raises:
        SettingsError: a value does not fit, a key is unknown, a file cannot be read.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    file = find_file(folder, config, environ)
    sources = [
        _from_file(file, section, fields, environ),
        _from_environment(environ, section, fields),
        _from_flags(flags),
    ]
    for source in sources:
        for name, (place, raw) in source.items():
            values[name] = _convert(
                fields[name].type, raw, place, file.parent if file and source is sources[0] else None
            )
            origins[name] = place
    return Resolved(kind(**values), origins)


def dump(settings: msgspec.Struct) -> bytes:
    """For another process; `load` reads it."""
    return msgspec.json.encode(settings, enc_hook=str)


def load(kind: type[T], data: bytes) -> T:
    """What `dump` wrote; types and bounds are checked again. Raises: SettingsError."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values = {name: raw for name, raw in msgspec.json.decode(data).items() if raw is not None}
    return kind(**{name: _convert(fields[name].type, raw, name, None) for name, raw in values.items()})


def parse_size(text: str) -> Size:
    """Bytes of `"256MiB"`. Raises ValueError."""
    return Size(_with_unit(text, _UNITS_BYTES, "bytes: 65536, 64KiB, 256MiB, 1GB"))


def parse_duration(text: str) -> Duration:
    """Seconds of `"30s"`. Raises ValueError."""
    return Duration(_with_unit(text, _UNITS_S, "a time: 250ms, 30s, 5m, 1h, 7d"))


# ---------------------------------------------------------------------------------------------------------- sources

_Source = dict[str, tuple[str, Any]]
"""Field name to place and raw value."""


def _from_flags(flags: Mapping[str, Any]) -> _Source:
    return {name: (flag_of(name), raw) for name, raw in flags.items() if raw is not None and raw != ()}


def _from_environment(environ: Mapping[str, str], section: str, fields: Mapping[str, Any]) -> _Source:
    """`HEADRACE_SECTION__NAME`; an empty one counts as not set, as compose files write it."""
    prefix = variable_of(section, "")
    found: _Source = {}
    for variable in sorted(environ):
        if variable.startswith(prefix) and environ[variable]:
            name = variable.removeprefix(prefix).lower()
            if name not in fields:
                raise unknown(variable, "setting", variable, [variable_of(section, field) for field in fields])
            found[name] = (variable, environ[variable])
    return found


def _from_file(file: Path | None, section: str, fields: Mapping[str, Any], environ: Mapping[str, str]) -> _Source:
    found: _Source = {}
    for key, (place, raw) in entries(file, section, fields, environ).items() if file is not None else ():
        name = key.replace("-", "_")
        if name not in fields:
            where, _, table = place.removesuffix(f".{key}").rpartition(": ")
            raise unknown(f"{where}: [{table}]", "setting", key, fields)
        found[name] = (place, raw)
    return found


# -------------------------------------------------------------------------------------------------------- conversion


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def variable_of(section: str, name: str) -> str:
    return f"HEADRACE_{section.upper()}__{name.upper()}"


def _convert(kind: Any, raw: Any, place: str, base: Path | None) -> Any:
    """The value as the field's type; paths in a file are relative to the file."""
    plain = _plain(kind)
    table = _table_of(plain)
    if table is not None:
        return _convert_tables(table, raw, place, base)
    if plain is bool and isinstance(raw, str):
        raw = _BOOLEANS.get(raw.lower(), raw)
    if typing.get_origin(plain) is tuple and isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    try:
        value = _measure(kind, plain, raw) if plain in (Size, Duration) else _strictly(kind, raw)
    except msgspec.ValidationError as error:
        raise SettingsError(place, f"{raw!r} does not fit: {_expected(plain, str(error))}") from None
    return value if base is None else _rebase(kind, value, base)


def _rebase(kind: Any, value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, tuple):
        return tuple(_rebase(None, one, base) for one in value)
    extra = next((meta.extra or {} for meta in getattr(kind, "__metadata__", ()) if meta.extra), {})
    return str(base / Path(value).expanduser()) if extra.get("relative") and value else value


def _table_of(plain: Any) -> type[msgspec.Struct] | None:
    """The Struct of a field that is several tables."""
    item = next(iter(typing.get_args(plain)), None)
    is_table = typing.get_origin(plain) is tuple and isinstance(item, type) and issubclass(item, msgspec.Struct)
    return item if is_table else None


def _convert_tables(kind: type[msgspec.Struct], raw: Any, place: str, base: Path | None) -> tuple[Any, ...]:
    """`[[section.name]]` of a file, or a JSON list."""
    if isinstance(raw, str):
        try:
            raw = msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise SettingsError(place, f"is not JSON: {error}") from None
    if not isinstance(raw, list) or not all(isinstance(table, dict) for table in raw):
        raise SettingsError(place, "must be a list of tables")
    return tuple(_convert_table(kind, table, f"{place}[{index}]", base) for index, table in enumerate(raw))


def _convert_table(kind: type[msgspec.Struct], table: dict[str, Any], place: str, base: Path | None) -> msgspec.Struct:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values = {}
    for key, raw in table.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise unknown(place, "key", key, fields)
        values[name] = _convert(fields[name].type, raw, f"{place}.{key}", base)
    missing = [name for name, field in fields.items() if field.required and name not in values]
    if missing:
        raise SettingsError(place, f"{missing[0]} is missing")
    return kind(**values)


def _strictly(kind: Any, raw: Any) -> Any:
    """By msgspec; only text, from a flag or the environment, may stand for a number."""
    return msgspec.convert(raw, kind, strict=not isinstance(raw, str), dec_hook=_path)


def _path(kind: type, raw: Any) -> Any:
    """What msgspec does not know: paths. A ValueError becomes its ValidationError."""
    if issubclass(kind, Path) and isinstance(raw, str | Path) and str(raw):
        return Path(raw).expanduser()
    raise ValueError("expected text")


def _measure(kind: Any, plain: type[Size | Duration], raw: Any) -> Size | Duration:
    """A size or time, its bounds checked: msgspec bounds only plain numbers."""
    parse, number = (parse_size, int) if plain is Size else (parse_duration, float)
    try:
        value = parse(raw) if isinstance(raw, str) else raw
    except ValueError as error:
        raise msgspec.ValidationError(str(error)) from None
    bounds = [bound for bound in getattr(kind, "__metadata__", ()) if isinstance(bound, msgspec.Meta)]
    bounded: Any = Annotated[number, *bounds] if bounds else number
    return plain(msgspec.convert(number(value) if isinstance(raw, str) else value, bounded))


def _with_unit(text: str, units: Mapping[str, float], expected: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    if found is None or (found[2] and found[2].lower() not in units):
        raise ValueError(f"expected {expected}")
    return float(found[1]) * units.get(found[2].lower(), 1)


def _plain(kind: Any) -> Any:
    """The type without annotations and without `| None`."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    return options[0] if type(None) in typing.get_args(kind) and len(options) == 1 else kind


def _expected(plain: Any, reason: str) -> str:
    if typing.get_origin(plain) is typing.Literal:
        return f"one of {', '.join(typing.get_args(plain))}"
    if plain is bool:
        return "on or off"
    return reason[:1].lower() + reason[1:]


def _describe(field: msgspec.structs.FieldInfo, section: str) -> Setting:
    meta = next((m for m in getattr(field.type, "__metadata__", ()) if isinstance(m, msgspec.Meta)), msgspec.Meta())
    plain = _plain(field.type)
    return Setting(
        name=field.name,
        flag=flag_of(field.name),
        variable=variable_of(section, field.name),
        kind=_kind(plain),
        default=_default_text(field.default),
        help=meta.description or "",
        switch=bool((meta.extra or {}).get("switch")),
        repeated=typing.get_origin(plain) is tuple,
        tables=_table_of(plain) is not None,
    )


def _kind(plain: Any) -> str:
    if typing.get_origin(plain) is typing.Literal:
        return "|".join(typing.get_args(plain))
    if _table_of(plain) is not None:
        return "tables"
    names = {bool: "on|off", int: "number", Path: "path", Size: "size", Duration: "time"}
    return names.get(plain, "text")


def _default_text(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, Duration):
        return f"{default / 3_600:g}h" if default and default % 3_600 == 0 else f"{default:g}s"
    if isinstance(default, Size):
        unit, power = ("GiB", 30) if default % 2**30 == 0 else ("MiB", 20)
        return f"{default >> power}{unit}" if default and default % 2**power == 0 else str(int(default))
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return "" if default is None else str(default)
