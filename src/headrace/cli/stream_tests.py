"""`headrace stream test`: a file's own tests of its pipelines."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from headrace.cli.stream_file import namespace, pipelines_of

if TYPE_CHECKING:
    from headrace.stream.pipelines import Pipeline

_VALUE_CHARACTERS_MAX: Final = 300
"""Of a variable of a failed test: a few rows."""


def run_tests(path: Path) -> int:
    """Run them, and say what became of each. Returns the exit code."""
    names = namespace(path)
    pipelines = pipelines_of(names)
    if not pipelines:
        raise click.UsageError(f"{path}: the file defines no pipeline")
    checks = _checks(names, pipelines)
    failed = [name for name, check in checks.items() if not _passes(path, name, check)]
    click.echo(f"{len(checks) - len(failed)} passed, {len(failed)} failed", err=True)
    return 1 if failed else 0


def _checks(names: dict[str, Any], pipelines: dict[str, Pipeline]) -> dict[str, Callable[[], None]]:
    """The file's tests; without any, a dry run of each pipeline."""
    tests = {name: value for name, value in names.items() if name.startswith("test_") and callable(value)}
    if tests:
        return {name: partial(_call, test, pipelines) for name, test in tests.items()}
    return {f"{name} runs without a row": partial(_run_dry, one) for name, one in pipelines.items()}


def _passes(path: Path, name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except click.ClickException:
        raise
    except Exception as error:  # noqa: BLE001 - a test may fail with anything
        click.echo(f"FAILED  {name}")
        click.echo(_why(path, error))
        return False
    click.echo(f"passed  {name}")
    return True


def _call(test: Callable[..., Any], pipelines: dict[str, Pipeline]) -> None:
    """The function, a harness for each parameter: the pipeline of that variable."""
    from headrace.testing.pipelines import Harness  # noqa: PLC0415 - heavy

    wanted = list(inspect.signature(test).parameters)
    unknown = [name for name in wanted if name not in pipelines]
    if unknown:
        raise click.UsageError(
            f"{test.__name__}({', '.join(wanted)}): {unknown[0]} is no pipeline of the file; it has {', '.join(pipelines)}"
        )
    with ExitStack() as closing:
        test(**{name: closing.enter_context(Harness(pipelines[name])) for name in wanted})


def _run_dry(pipeline: Pipeline) -> None:
    from headrace.testing.pipelines import Harness  # noqa: PLC0415 - heavy

    with Harness(pipeline) as harness:
        harness.end()


def _why(path: Path, error: Exception) -> str:
    """The error, with the file's own lines; a bare assertion with the values that the test had."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    lines = [f"    {path}:{frame.lineno}: {frame.line}" for frame in frames]
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    values = _values(path, error) if isinstance(error, AssertionError) and not str(error) else []
    return "\n".join([*lines, f"    {said}", *values])


def _values(path: Path, error: AssertionError) -> list[str]:
    """A line for each variable of the file's innermost function; harnesses say nothing that a person could read."""
    from headrace.testing.pipelines import Harness  # noqa: PLC0415 - heavy

    walked = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    names = walked[-1].f_locals if walked else {}
    shown = {name: repr(value) for name, value in names.items() if not isinstance(value, Harness)}
    return [f"    {name} = {text[:_VALUE_CHARACTERS_MAX]}" for name, text in shown.items()]
