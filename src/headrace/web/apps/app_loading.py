"""Import the application that `module:app` names, and detect whether it is WSGI or ASGI."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from headrace import loading
from headrace.loading import AppInvalid, AppNotFound, describe

__all__ = ["AppInvalid", "AppNotFound", "Interface", "interface_of", "load"]

Interface: TypeAlias = Literal["wsgi", "asgi"]

_USUAL_NAMES: Final = ("app", "application", "asgi", "wsgi")
"""Names that are tried when only a module is given."""
_WSGI_NAMES: Final = frozenset({"environ", "start_response"})
_ASGI_NAMES: Final = frozenset({"scope", "receive", "send"})


def load(spec: str, *, app_dir: Path) -> Any:  # an application may be anything that can be called
    """Import the application; see `headrace.loading.load`."""
    return loading.load(spec, app_dir=app_dir, usual=_USUAL_NAMES)


def interface_of(app: object) -> Interface:
    """The interface of `app`, detected from its signature; it is not called.

    A coroutine function, or three arguments, is ASGI; one argument is ASGI in its older form, which answers a coroutine
    function; two arguments, or any number, are WSGI. Instances are judged by `__call__`, classes by how they are constructed.

    Raises: AppInvalid.
    """
    what = describe(app)
    if not callable(app):
        raise AppInvalid(what, f"a {type(app).__name__} cannot be called")
    if _is_coroutine_function(app):
        return _checked_coroutine(what, app)
    names, required, most = _positional(what, app)
    if _ASGI_NAMES.intersection(names):
        return "asgi"
    if _WSGI_NAMES.intersection(names):
        return "wsgi"
    if not most:
        raise AppInvalid(what, "it takes no arguments; if it is a factory, append ()")
    if most == _UNLIMITED and required <= 2:
        return "wsgi"  # as `wsgiref.validate` wraps; what wraps an ASGI application is a coroutine function
    if required > 3 or most == _UNLIMITED:
        raise AppInvalid(what, "its arguments do not show whether it is WSGI or ASGI; set --interface")
    return "wsgi" if required <= 2 <= most else "asgi"


# Judging

_UNLIMITED: Final = 1_000  # *args


def _is_coroutine_function(app: Callable[..., Any]) -> bool:
    inner: Any = _unwrapped(app)
    if inspect.iscoroutinefunction(inner):
        return True
    return not inspect.isclass(inner) and inspect.iscoroutinefunction(_unwrapped(inner.__call__))


def _unwrapped(app: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside partials and decorators that use `functools.wraps`."""
    while isinstance(app, functools.partial):
        app = app.func
    inner: Callable[..., Any] = inspect.unwrap(app)
    return inner


def _checked_coroutine(what: str, app: Callable[..., Any]) -> Interface:
    _, required, most = _positional(what, app)
    if required > 3 or most < 3:
        raise AppInvalid(what, "an async application takes scope, receive and send")
    return "asgi"


def _positional(what: str, app: Callable[..., Any]) -> tuple[list[str], int, int]:
    """Names of the positional parameters; how many must be given, and how many may."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        raise AppInvalid(what, "its arguments are unknown; set --interface to wsgi or asgi") from None
    plain = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = sum(each.default is each.empty for each in plain)
    unlimited = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return [each.name for each in plain], required, _UNLIMITED if unlimited else len(plain)
