"""docs/web.md and docs/durable-requests.md: their files are read, their commands run and print what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headrace.cli.serve import serve as command
from headrace.settings import resolve
from headrace.web.check import check
from headrace.web.settings import WebSettings
from tests.broker_process import environment
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve

DOCS = Path(__file__).parents[2] / "docs"
DURABLE = (DOCS / "durable-requests.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
WEB = (DOCS / "web.md").read_text(encoding="utf-8")
FILE = re.compile(r"^```(?:python|toml|css)\n(?:# |/\* )([\w./]+)(?: \*/)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
TABLES = re.compile(r"^```toml\n(\[\[.*?)^```", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
REQUEST_ID = re.compile(r"/\.headrace/requests/([\w-]{24})")


def write_files(page: str, folder: Path) -> None:
    """Every block whose first line is a comment with a name is that file."""
    for name, content in FILE.findall(page):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of the page's consoles, with the lines that it prints."""
    for block in CONSOLE.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *printed = part.strip().splitlines()
            yield command, printed


class Shell:
    """Runs the page's commands against a server of the test; the id in the page stands for the one that was given."""

    def __init__(self, server: WebProcess) -> None:
        self.server = server
        self.ids: dict[str, str] = {}
        program = server.folder / "headrace"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m headrace "$@"\n')
        program.chmod(0o755)

    def run(self, command: str, printed: list[str]) -> None:
        """A question is asked until the answer is the page's; what changes something is said once."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            output = self._output(command)
            missing = [line for line in printed if self._pattern(line, output).search(output) is None]
            if not missing:
                return
            repeatable = " -d " not in command and "redrive" not in command
            assert repeatable and time.monotonic() < deadline, f"$ {command}\n{output}\nhas not: {missing}"
            time.sleep(0.1)  # the server is another process

    def _output(self, command: str) -> str:
        for shown, actual in self.ids.items():
            command = command.replace(shown, actual)
        command = command.replace("http://127.0.0.1:8000", self.server.url)
        path = f"{self.server.folder}:/usr/local/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-c", command], check=False, capture_output=True, text=True, timeout=PATIENCE_S,
            cwd=self.server.folder, env=environment(PATH=path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.replace("\r\n", "\n")

    def _pattern(self, line: str, output: str) -> re.Pattern[str]:
        found = REQUEST_ID.search(line)
        actual = REQUEST_ID.search(output)
        if found and actual:
            self.ids.setdefault(found[1], actual[1])
        for shown, one in self.ids.items():
            line = line.replace(shown, one)
        return re.compile(re.escape(line).replace("…", ".*"))


def test_the_walk_through_durable_requests_runs_as_shown(tmp_path: Path) -> None:
    write_files(DURABLE, tmp_path)
    with serve(tmp_path, "--workers", "1", "--port", "0") as server:
        shell = Shell(server)
        steps = list(commands(DURABLE))
        assert len(steps) >= 9
        for step, printed in steps:
            shell.run(step, printed)
        assert server.stop() == 0


def test_the_decorated_app_is_durable(tmp_path: Path) -> None:
    write_files(DURABLE, tmp_path)
    (tmp_path / "headrace.toml").unlink()
    with serve(tmp_path, "marked:app", "--workers", "1", "--port", "0", "--broker", "./queue") as server:
        assert server.get("/hooks", method="POST", headers={"Prefer": "wait=10"}) == (200, b'{"attempt":1}\n')
        status, body = server.get("/hooks", method="POST")
        assert (status, b'"status":"queued"' in body) == (202, True)
        assert server.stop() == 0


def test_the_quick_start_serves(tmp_path: Path) -> None:
    write_files(WEB, tmp_path)
    (tmp_path / "headrace.toml").unlink()
    for app, path, answer in (
        ("shop.main:app", "/", '{"hello":"world"}'),
        ("api:app", "/", '{"hello":"world"}'),
        ("./public", "/site.css", "body { font-family: system-ui }"),
    ):
        assert f"headrace serve {app}\n" in WEB
        with serve(tmp_path, app, "--workers", "1") as server:
            assert server.text(path).strip() == answer
            assert server.stop() == 0


def test_the_routes_of_the_page_lead_where_it_says(tmp_path: Path) -> None:
    write_files(WEB, tmp_path)
    with serve(tmp_path, "--workers", "1") as server:
        assert server.text("/") == server.text("/api/").strip() + "\n" == '{"hello":"world"}\n'
        assert server.text("/static/site.css") == "body { font-family: system-ui }\n"
        assert server.get("/", headers={"Host": "old.example.org"})[0] in (502, 503)  # nobody is there
        assert server.get("/reports")[0] == 404
        assert server.stop() == 0


@pytest.mark.parametrize("tables", TABLES.findall(WEB))
def test_the_tables_of_the_page_are_settings(tables: str, tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(f'[web]\napp = "shop.main:app"\n\n{tables}', encoding="utf-8")
    found = resolve(WebSettings, "web", flags={}, environ={}, folder=tmp_path).settings
    check(found)
    assert found.limits


def test_flags_of_the_page_are_flags_of_the_command() -> None:
    flags = {flag for option in command.params for flag in option.opts if isinstance(option, click.Option)}
    text, *tables = WEB.split("\n## Coming from ")
    named = set(re.findall(r"`(--[a-z][a-z0-9-]+)", text))
    named |= {flag for line in re.findall(r"^headrace serve .*$", text, re.MULTILINE) for flag in _flags(line)}
    rows = [line.replace("\\|", "") for table in tables for line in table.splitlines() if line.startswith("| `")]
    named |= {flag for row in rows for flag in _flags(row.split("|")[2])}
    recipes = [line for line in OPERATIONS.splitlines() if "headrace serve" in line or line.startswith("    --")]
    named |= {flag for recipe in recipes for flag in _flags(recipe)}
    assert len(recipes) > 3
    assert len(named) > 20
    assert sorted(named - flags) == []


def _flags(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", text)
