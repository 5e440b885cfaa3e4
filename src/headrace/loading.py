"""Find what `module:app` names on a command line: the application of the web server, the tasks of workers."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.errors import CallerError


@dataclass(eq=False)
class AppNotFound(CallerError):
    """`spec` names a module or an attribute that does not exist."""

    spec: str
    reason: str

    def __str__(self) -> str:
        return f"cannot find the application {self.spec!r}: {self.reason}"


@dataclass(eq=False)
class AppInvalid(CallerError):
    """What was found is not what was looked for: not a WSGI or ASGI application, not an app with tasks."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} is not an application that can be run: {self.reason}"


def load(
    spec: str,
    *,
    app_dir: Path,
    usual: Sequence[str],
    fits: Callable[[Any], bool] = callable,
) -> Any:  # an application may be anything
    """Import the application.

    Args:
        spec: `module:attribute`, `package.module:object.attribute`, `module:factory()` (literal arguments may be given),
            or `module`, in which the usual names are looked for.
        app_dir: goes first on `sys.path`.
        usual: names that are looked for when a module alone is given, the likeliest first.
        fits: whether what has such a name can be the application.

    Raises: AppNotFound, AppInvalid. What the module or the factory itself raises passes through as it is, also an
        ImportError: it is the application's, and its traceback says where.
    """
    folder = str(app_dir.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, _, expression = spec.partition(":")
    module = _import(spec, module_name, Path(folder))
    if not expression:
        return _usual(spec, module, usual, fits)
    return _evaluate(spec, module, _parse(spec, expression))


def describe(app: object) -> str:
    """What it is called in an error's text."""
    if inspect.ismodule(app):
        return f"module {app.__name__!r}"
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else f"the {type(app).__name__}"


# Finding


def _import(spec: str, name: str, folder: Path) -> ModuleType:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise AppNotFound(spec, _hint_at_form(name))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise  # the module is there; one that it imports is not
        raise AppNotFound(spec, _no_module(missing, folder)) from None


def _hint_at_form(name: str) -> str:
    if name.endswith(".py"):
        module = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        return f"give the module, not its file: {module}:app"
    return f"{name!r} is no module name; the form is module:app"


def _no_module(missing: str, folder: Path) -> str:
    parent, _, last = missing.rpartition(".")
    if parent:
        there = getattr(sys.modules.get(parent), "__path__", None)
        if there is None:
            return f"{parent!r} is a module, not a package; did you mean {parent}:{last}?"
        names = [module.name for module in pkgutil.iter_modules(there)]
        return f"package {parent!r} has no module {last!r}{_near(last, names)}"
    names = [module.name for module in pkgutil.iter_modules([str(folder)])]
    return f"there is no module {last!r} in {folder}{_near(last, names)}; --app-dir says where to look"


def _usual(spec: str, module: ModuleType, usual: Sequence[str], fits: Callable[[Any], bool]) -> Any:
    for name in usual:
        if fits(found := getattr(module, name, None)):
            return found
    candidates = [name for name, value in vars(module).items() if "app" in name.lower() and fits(value)]
    hint = f"; maybe {module.__name__}:{candidates[0]}?" if candidates else ""
    raise AppNotFound(spec, f"the module has none of {', '.join(usual)}; give module:name{hint}")


def _parse(spec: str, expression: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise AppNotFound(spec, f"{expression!r} is no name; the form is module:app or module:factory()") from None


def _evaluate(spec: str, module: ModuleType, node: ast.expr) -> Any:
    """Names, attributes and calls with literals; nothing else is run from a command line or a settings file."""
    match node:
        case ast.Name(id=name):
            return _attribute(spec, module, name)
        case ast.Attribute(value=inner, attr=name):
            return _attribute(spec, _evaluate(spec, module, inner), name)
        case ast.Call(func=inner, args=args, keywords=keywords):
            factory = _evaluate(spec, module, inner)
            if not callable(factory):
                raise AppInvalid(describe(factory), f"a {type(factory).__name__} cannot be called; leave out the ()")
            named = {_keyword(spec, keyword): _literal(spec, keyword.value) for keyword in keywords}
            return factory(*[_literal(spec, arg) for arg in args], **named)
    raise AppNotFound(spec, "after the colon come names, dots and calls with plain values only")


def _attribute(spec: str, owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        names = [other for other in dir(owner) if not other.startswith("_")]
        raise AppNotFound(spec, f"{describe(owner)} has no attribute {name!r}{_near(name, names)}") from None


def _keyword(spec: str, keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise AppNotFound(spec, "** is not understood here")
    return keyword.arg


def _literal(spec: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise AppNotFound(spec, f"the argument {ast.unparse(node)} is not a plain value") from None


def _near(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
