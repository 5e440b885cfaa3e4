"""docs/cli.md: its examples run, and it documents every command and option."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_main import commands
from tests.native.served import ServedBroker

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHARED = {"--broker", "--output", "--help"}


def section(name: str) -> str:
    """The text below a command's heading."""
    return PAGE.partition(f"\n## headrace {name}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", [name for name, command in commands() if not isinstance(command, click.Group)])
def test_every_command_has_a_section(name: str) -> None:
    assert section(name).strip(), f"docs/cli.md has no section on headrace {name}"


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, command in commands() if name.startswith(("queue ", "topic ", "top", "completion"))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_is_explained(name: str, command: click.Command) -> None:
    text = section(name) + (section("queue create") if name == "queue set" else "")
    options = {opt for parameter in command.params for opt in parameter.opts if opt.startswith("--")}

    assert [option for option in options - SHARED if option not in text] == []
    assert all(f"{option}" in PAGE for option in ("--broker", "-o table", "--help"))


def test_every_section_is_of_a_command() -> None:
    assert set(re.findall(r"^## headrace (.*)$", PAGE, re.MULTILINE)) <= {name for name, _ in commands()}


def test_examples_run_from_top_to_bottom(served: ServedBroker, run: CommandLine, tmp_path: Path) -> None:
    del run  # it sets HEADRACE_BROKER
    program = tmp_path / "headrace"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m headrace "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HEADRACE_BROKER": served.url,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    lines = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
    script = "\n".join(["set -eu", *lines])

    done = subprocess.run(
        ["sh", "-c", script], check=False, capture_output=True, text=True, env=environment, timeout=500, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert len(lines) > 20
    assert '"deleted": 5' in done.stdout
