"""The decorator `durable`, by which an application marks its own routes while it is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from headrace.errors import InvalidParameter
from headrace.web.paths import prefix_of
from headrace.web.settings import METHODS

_Function = TypeVar("_Function", bound=Callable[..., Any])

# One a process, like the application that fills it: decorators run at import, where nothing can be passed as an argument.
_durable: Final[dict[str, list[str]]] = {}


def durable(path: str, *, methods: Iterable[str] = METHODS) -> Callable[[_Function], _Function]:
    """Mark the requests below `path` as durable: they are committed to the broker before they are accepted (202).

        @app.post("/webhooks")
        @durable("/webhooks", methods=["POST"])
        def receive(): ...

    Works on any function or class, and leaves it as it is; `durable("/webhooks")` in a line of its own does too. Without
    `--broker` such requests are refused.

    Args:
        path: prefix, at a slash: `/webhooks` marks `/webhooks` and `/webhooks/x`, not `/webhooks2`.
        methods: those of them; by default POST, PUT, PATCH, DELETE.

    Raises: InvalidParameter.
    """
    try:
        prefix_of(path)
    except ValueError as error:
        raise InvalidParameter("path", repr(path), str(error)) from None
    if isinstance(methods, str):
        raise InvalidParameter("methods", repr(methods), "it must be a list of methods")
    wanted = _durable.setdefault(path, [])
    wanted.extend(method.upper() for method in methods if method.upper() not in wanted)
    return _same


def durable_marks() -> list[tuple[str, list[str]]]:
    """(path prefix, methods) of all marks so far: `Hello.durable`."""
    return [(path, list(methods)) for path, methods in _durable.items()]


def _same(function: _Function) -> _Function:
    return function
