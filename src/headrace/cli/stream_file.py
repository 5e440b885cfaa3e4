"""The pipelines of a Python file."""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from headrace.stream.pipelines import Pipeline

MODULE_NAME: Final = "__headrace__"
"""What the file is called while it is loaded: so that what stands below `if __name__ == "__main__":` is not run."""


def load(place: str) -> Pipeline:
    """The pipeline `FILE.py` defines, or `FILE.py:NAME`: a variable's or the pipeline's own name.

    Raises:
        UsageError: the file is not there, has no pipeline, or several.
        ClickException: it raises an error of its own.
    """
    path, name = _split(place)
    found = pipelines_of(namespace(path))
    if name:
        chosen = {variable: one for variable, one in found.items() if name in (variable, one.name)}
    else:
        chosen = found
    different = {id(one): one for one in chosen.values()}
    if len(different) == 1:
        return next(iter(different.values()))
    raise click.UsageError(_which(place, name, found))


def namespace(path: Path) -> dict[str, Any]:
    """The names that the file defines. Modules beside it can be imported by it."""
    if not path.is_file():
        raise click.UsageError(f"{path}: there is no such file")
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        return runpy.run_path(str(path), run_name=MODULE_NAME)
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(_failed(path, error)) from error


def pipelines_of(names: dict[str, Any]) -> dict[str, Pipeline]:
    """Those of them that are pipelines, by the variable's name."""
    from headrace.stream.pipelines import Pipeline  # noqa: PLC0415 - heavy

    return {name: value for name, value in names.items() if isinstance(value, Pipeline)}


def _split(place: str) -> tuple[Path, str]:
    """FILE.py:NAME; a file whose name has a colon is taken as it is."""
    head, colon, name = place.rpartition(":")
    return (Path(head), name) if colon and not Path(place).is_file() else (Path(place), "")


def _which(place: str, name: str, found: dict[str, Pipeline]) -> str:
    if not found:
        return f"{place}: the file defines no pipeline; write pipeline = hs.pipeline(NAME, …) in it"
    names = ", ".join(found)
    if name:
        return f"{place}: there is no pipeline {name!r} in the file; it has {names}"
    return f"{place}: the file has several pipelines; name one: {place}:{next(iter(found))} (it has {names})"


def _failed(path: Path, error: Exception) -> str:
    """What the file did wrong, and where in it."""
    from headrace.errors import HeadraceError  # noqa: PLC0415 - as above

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno}: {error.msg}"
    return f"{where}: {error}" if isinstance(error, HeadraceError) else f"{where}: {type(error).__name__}: {error}"
