"""Typed arguments: a call's arguments as JSON by parameter name, and back. The signature is the schema.

The sender writes them and reads them back as the worker will: what passes here is what the worker gets. Annotations that
msgspec knows (dataclasses, Structs, TypedDicts, datetime, Decimal, UUID, Enum, unions, containers, …) and pydantic models
are checked and built; without an annotation an argument is plain JSON.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

from headrace.work.errors import InvalidArguments, InvalidOption

_ABSENT: Final = object()
_VALUE_CHARACTERS_MAX: Final = 80
_Parameter = inspect.Parameter


class Arguments:
    """The arguments of one function.

    Raises:
        InvalidOption: a parameter's annotation cannot be sent as JSON.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._signature = inspect.signature(function)
        self._parameters = list(self._signature.parameters.values())
        self._encoder = msgspec.json.Encoder(enc_hook=_encoded)
        self._record, self._decoder, self._result = self._types()

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self._parameters]

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> msgspec.Raw:
        """Checked and written.

        Raises:
            InvalidArguments: they do not fit the signature, or a value does not fit its annotation.
        """
        given = self._bound(args, kwargs)
        return self._written(given)

    def encode_some(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, without: str) -> msgspec.Raw:
        """As `encode`, for a call whose parameter `without` is filled later: only the others are checked and written."""
        try:
            given = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidArguments(self._name, "", "", str(error)) from None
        given.pop(without, None)
        return self._plain(given)

    def first_open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The first parameter that the call leaves open; empty when there is none that could be named."""
        try:
            given = self._signature.bind_partial(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArguments(self._name, "", "", f"{error}; it is {self._name}{self._signature}") from None
        fillable = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)
        return next((one.name for one in self._parameters if one.kind in fillable and one.name not in given), "")

    def call(self, args: msgspec.Raw) -> tuple[list[Any], dict[str, Any]]:
        """What to call the function with: positional and keyword arguments, typed.

        Raises:
            InvalidArguments: they do not fit the signature of the function as it is here.
        """
        try:
            record = self._decoder.decode(args)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._invalid(error, {}) from None
        positional: list[Any] = []
        named: dict[str, Any] = {}
        gap = False  # a parameter was left out: those behind it go by name
        for parameter in self._parameters:
            value = getattr(record, parameter.name)
            if value is _ABSENT:
                gap = True
            else:
                _place(parameter, value, positional, named, by_name=gap)
        return positional, named

    def encode_result(self, value: Any) -> msgspec.Raw:
        """Raises TypeError for what is no JSON."""
        return msgspec.Raw(self._encoder.encode(value))

    def decode_result(self, value: msgspec.Raw) -> Any:
        """The result, as the function's return annotation has it."""
        return self._result.decode(value)

    def values(self, args: msgspec.Raw) -> dict[str, Any]:
        """Arguments by name with defaults applied, for functions of the arguments (`unique=`, `group=`, `key=`)."""
        positional, named = self.call(args)
        bound = self._signature.bind(*positional, **named)
        bound.apply_defaults()
        return bound.arguments

    def apply(self, function: Callable[..., Any], args: msgspec.Raw) -> Any:
        """`function` called with the same arguments."""
        positional, named = self.call(args)
        return function(*positional, **named)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArguments(self._name, "", "", f"{error}; it is {self._name}{self._signature}") from None

    def _written(self, given: dict[str, Any]) -> msgspec.Raw:
        raw = self._plain(given)
        try:
            self._decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._invalid(error, given) from None
        return raw

    def _plain(self, given: dict[str, Any]) -> msgspec.Raw:
        try:
            return msgspec.Raw(self._encoder.encode(given))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._unwritable(given, error) from None

    def _unwritable(self, given: dict[str, Any], error: Exception) -> InvalidArguments:
        for name, value in given.items():
            try:
                self._encoder.encode(value)
            except (TypeError, ValueError, OverflowError, RecursionError) as reason:
                return InvalidArguments(self._name, name, _short(value), f"it cannot be written as JSON: {reason}")
        return InvalidArguments(self._name, "", "", f"they cannot be written as JSON: {error}")

    def _invalid(self, error: Exception, given: dict[str, Any]) -> InvalidArguments:
        """msgspec ends its message with the place: ``Expected `int`, got `str` - at `$.a` ``."""
        reason, _, place = str(error).partition(" - at `$.")
        parameter = place.rstrip("`").partition(".")[0].partition("[")[0]
        value = _short(given[parameter]) if parameter in given else ""
        return InvalidArguments(self._name, parameter, value, reason)

    def _types(self) -> tuple[Any, msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
        hints = _hints(self._function)
        fields = [_field(parameter, hints.get(parameter.name, Any)) for parameter in self._parameters]
        for parameter in self._parameters:
            _check(self._name, parameter.name, hints.get(parameter.name, Any))
        record = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        result = hints.get("return", Any)
        return record, _decoder(record), _decoder(_awaited(result))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Names that are imported for type checkers alone are not known here: then annotations are not checked."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        return {}


def _field(parameter: _Parameter, hint: Any) -> tuple[str, Any, Any]:
    if parameter.kind is _Parameter.VAR_POSITIONAL:
        return parameter.name, list[hint], msgspec.field(default=_ABSENT)
    if parameter.kind is _Parameter.VAR_KEYWORD:
        return parameter.name, dict[str, hint], msgspec.field(default=_ABSENT)
    required = parameter.default is _Parameter.empty
    return parameter.name, hint, msgspec.field() if required else msgspec.field(default=_ABSENT)


def _place(parameter: _Parameter, value: Any, positional: list[Any], named: dict[str, Any], *, by_name: bool) -> None:
    if parameter.kind is _Parameter.VAR_POSITIONAL:
        positional.extend(value)
    elif parameter.kind is _Parameter.VAR_KEYWORD:
        named.update(value)
    elif parameter.kind is not _Parameter.KEYWORD_ONLY and not by_name:
        positional.append(value)
    else:
        named[parameter.name] = value


def _check(task: str, parameter: str, hint: Any) -> None:
    try:
        unknown = [kind for kind in _customs(msgspec.inspect.type_info(hint)) if not _is_model(kind)]
        _decoder(hint)
    except TypeError as error:
        raise InvalidOption("annotation", f"{task}({parameter}: {hint})", str(error)) from None
    if unknown:
        raise InvalidOption(
            "annotation",
            f"{task}({parameter}: {unknown[0].__name__})",
            "it cannot be sent as JSON; take an id, a dataclass or a pydantic model and look it up in the task",
        )


def _customs(info: Any) -> list[type]:
    """Classes that msgspec does not know, anywhere in a type."""
    if isinstance(info, msgspec.inspect.CustomType):
        return [info.cls]
    inner = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type", "type")]
    several = [*getattr(info, "types", ()), *(getattr(info, "item_types", ()) or ())]
    return [kind for part in [*inner, *several] if isinstance(part, msgspec.inspect.Type) for kind in _customs(part)]


def _awaited(hint: Any) -> Any:
    return hint if hint is not None else type(None)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_decoded)


def _is_model(kind: type) -> bool:
    return hasattr(kind, "model_validate") and hasattr(kind, "model_dump")


def _encoded(value: Any) -> Any:
    """What msgspec cannot write: pydantic models."""
    if _is_model(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decoded(kind: type, value: Any) -> Any:
    if not _is_model(kind):
        raise TypeError(f"{kind.__name__} is not JSON")
    return kind.model_validate(value)  # type: ignore[attr-defined]  # _is_model has looked


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS_MAX else text[: _VALUE_CHARACTERS_MAX - 1] + "…"
