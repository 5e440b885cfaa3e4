"""The reference: pages that the code writes, so that they cannot differ from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

import headrace.postgres
import headrace.stream
import headrace.work
from headrace.cli.main import cli
from headrace.up.reference import reference as settings_reference

OPERATIONS: Final = Path(__file__).parent.parent / "docs" / "operations.md"
METRIC = re.compile(r"^\| `(?:headrace|process)_\w+.*\|$", re.MULTILINE)
ACTION = re.compile(r"^\| `[a-z_]+\.[a-z_.]+`.*\|$", re.MULTILINE)
API: Final = {
    "Broker and client": tuple(f"headrace.{name}" for name in headrace.__all__ if name not in ("App", "__version__")),
    "Tasks": ("headrace.App", *(f"headrace.work.{name}" for name in headrace.work.__all__ if name != "App")),
    "PostgreSQL transactions": tuple(f"headrace.postgres.{name}" for name in headrace.postgres.__all__),
    "Web": ("headrace.web.durable",),
    "Streams": tuple(f"headrace.stream.{name}" for name in headrace.stream.__all__),
    "Tests": ("headrace.testing.tasks.in_memory", "headrace.testing.tasks.Tasks", "headrace.testing.pipelines.Harness", "headrace.testing.pipelines.run_in_memory"),
    "Errors": ("headrace.errors",),
}  # fmt: skip
"""Heading → what is public below it: names whose docstrings are shown."""


def pages() -> dict[str, str]:
    """Path in the site → text."""
    return {
        "reference/commands.md": "\n".join(_commands()),
        "reference/settings.md": "# Settings\n\nEvery section and key of headrace.toml.\n\n" + settings_reference(),
        "reference/metrics.md": _table("Metrics", "metric | kind | meaning", METRIC),
        "reference/log.md": _table("Log actions", "action | means", ACTION),
        "reference/api.md": "\n".join(_api()),
    }


def _commands() -> Iterator[str]:
    yield "# Commands\n\nWhat `headrace … --help` says. The guide, with examples, is [the command line](../cli.md).\n"
    yield from _command(cli, click.Context(cli, info_name="headrace"))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command and all below it, in the order of the help."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, f"{name} is listed and not there"
            yield from _command(below, click.Context(below, parent=context, info_name=name))
        return
    yield f"## {context.command_path}\n"
    yield "```text\n" + " ".join([context.command_path, *command.collect_usage_pieces(context)]) + "\n```\n"
    yield _help(command) + "\n"
    yield from _options(command, context)


def _help(command: click.Command) -> str:
    """As it was written: what click would not wrap are lines of code."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(f"```text\n{text[2:]}\n```" if text.startswith("\b\n") else text for text in paragraphs)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
    if records:
        yield "| option | meaning |\n| --- | --- |"
        for name, meaning in records:
            yield f"| `{_cell(name)}` | {_cell(meaning)} |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(title: str, head: str, row: re.Pattern[str]) -> str:
    """All rows of the tables in operations.md that are of a kind, sorted. Tests hold those tables to the code."""
    rows = sorted(row.findall(OPERATIONS.read_text(encoding="utf-8")))
    rule = " | ".join("---" for _ in head.split("|"))
    told = "All of them in one table; what to do about them: [operations](../operations.md)."
    plain = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", line) for line in dict.fromkeys(rows)]
    return "\n".join([f"# {title}\n", told + "\n", f"| {head} |", f"| {rule} |", *plain, ""])


def _api() -> Iterator[str]:
    yield "# Python API\n\nFrom the docstrings. The guides: [client](../python.md), [tasks](../tasks.md), [streams](../stream.md).\n"
    for heading, names in API.items():
        yield f"## {heading}\n"
        for name in names:
            yield f"::: {name}\n"
