from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from headrace import __version__
from headrace.cli.failures import explain
from headrace.cli.main import COMMANDS, GROUPS, cli
from headrace.errors import AccessDenied, Unavailable
from tests.broker_process import run_to_end
from tests.cli.conftest import CommandLine
from tests.patience import PATIENCE_S

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def commands() -> list[tuple[str, click.Command]]:
    """Every command with its whole name, groups included."""
    found: list[tuple[str, click.Command]] = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", each) for sub, each in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_option_has_help(run: CommandLine, name: str, command: click.Command) -> None:
    result = run(*name.split(), "--help")

    assert result.code == 0
    assert command.help
    assert "..." not in result.out.partition("Commands:")[2], "cut off"
    assert "\\b" not in result.out, "a mark of click's shown"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_help_of_the_lazy_table_is_the_commands_own_subject(run: CommandLine) -> None:
    result = run("--help")

    sections = result.out.split("\n\n")
    listed = {section.partition(":\n")[0]: section.partition(":\n")[2] for section in sections}
    names = {heading: [line.split()[0] for line in listed[heading].splitlines()] for heading in GROUPS}
    assert names == {heading: list(group) for heading, group in GROUPS.items()}
    assert not any("..." in listed[heading] for heading in GROUPS), "cut off"
    assert max(map(len, result.out.splitlines())) <= 80


def test_version(run: CommandLine) -> None:
    assert run("--version").out == f"headrace {__version__}\n"


def test_help_loads_no_system() -> None:
    program = (
        "import sys; from headrace.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sorted(m for m in sys.modules if m.split('.')[0] in "
        "('msgspec', 'rich', 'apsw', 'uvloop', 'asyncio', 'httptools')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=ENVIRONMENT
    )

    assert done.stdout.splitlines()[-1] == ""


def test_help_is_there_at_once() -> None:
    def cpu_seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "headrace", "--help"], check=True, capture_output=True, env=ENVIRONMENT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu_seconds() for _ in range(5)) < 0.15


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(run: CommandLine, shell: str) -> None:
    result = run("completion", shell)

    assert result.code == 0
    assert "_HEADRACE_COMPLETE" in result.out


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["queue", "nonsense"], ["queue", "ls", "--nonsense"], ["queue", "peek"], ["completion", "x"]],
)
def test_wrong_call_is_exit_code_2_with_a_hint(run: CommandLine, arguments: list[str]) -> None:
    result = run(*arguments)

    assert (result.code, result.out) == (2, "")
    assert "--help" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["broker", "--port", "x"], "--port: 'x' does not fit: expected `int`"),
        (["store", "init", "sqlite:///x"], "a database is named as postgresql://USER@HOST/DATABASE"),
        (["store", "check"], "Name a database, postgresql://USER@HOST/DATABASE"),
        (["task", "ls", "--status", "nope"], "'retried'"),
    ],
)
def test_wrong_value_is_told_with_what_fits(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)

    assert result.code == 2
    assert said in result.err


def test_json_is_told_by_its_name_here(run: CommandLine) -> None:
    result = run("queue", "ls", "--json")

    assert result.code == 2
    assert "`-o json`" in result.err


def test_address_in_use_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_to_end("--data", f"{tmp_path}/data", "--port", str(taken.getsockname()[1]), cwd=tmp_path)

    assert ended.returncode == 1
    assert "Address already in use; end what listens there, or name another address" in ended.stderr


def test_error_is_one_line_that_says_what_to_do(run: CommandLine) -> None:
    result = run("queue", "peek", "nope")

    assert (result.code, result.out) == (1, "")
    [line] = result.err.splitlines()
    assert line.startswith("Error: there is no queue 'nope'; ")
    assert "headrace queue create" in line


def test_no_broker_is_said_at_once(run: CommandLine) -> None:
    started = time.monotonic()
    result = run("queue", "ls", "--broker", "http://127.0.0.1:1")

    assert result.code == 1
    assert "headrace broker --data DIR" in result.err
    assert time.monotonic() - started < 9  # clients that wait for a broker do so for 10 s


def test_mistyped_folder_is_not_made(run: CommandLine, tmp_path: object) -> None:
    folder = f"{tmp_path}/typo"

    assert run("queue", "ls", "--broker", folder).code == 2
    assert not os.path.exists(folder)  # noqa: PTH110


@pytest.mark.parametrize(
    ("words", "incomplete", "completed"),
    [
        ([], "qu", ["queue"]),
        (["queue"], "p", ["peek", "purge"]),
        (["queue", "peek"], "or", ["orders"]),
        (["queue", "peek", "--broker", "http://127.0.0.1:1"], "or", []),
        (["queue", "peek", "orders"], "--a", ["--after"]),
    ],
)
def test_completion_knows_commands_options_and_queues(
    run: CommandLine, words: list[str], incomplete: str, completed: list[str]
) -> None:
    run("queue", "create", "orders")
    run("queue", "create", "other")

    found = BashComplete(cli, {}, "headrace", "_HEADRACE_COMPLETE").get_completions(words, incomplete)

    assert [item.value for item in found] == completed


def test_broker_that_is_there_is_not_to_be_started() -> None:
    away = Unavailable("the database at postgresql://db cannot be used now: gone; see `headrace store check`")
    assert explain(away) == str(away)
    assert "headrace broker --data DIR" in explain(Unavailable("no broker at http://127.0.0.1:1: Connection refused"))


def test_who_is_refused_for_a_key_is_told_where_keys_are_set() -> None:
    refused = AccessDenied("MissingAuthenticationToken: Request is missing Authentication Token")
    assert explain(refused).endswith("; HEADRACE_ACCESS_KEY and HEADRACE_SECRET_KEY say with which key to ask")
    other = AccessDenied("arn:aws:iam::000000000000:user/reader is not an operator")
    assert explain(other) == str(other)


@pytest.mark.parametrize(
    "code",
    [
        "from headrace.cli.main import main; main(['store', 'init', 'postgresql://x/y'])",
        "from headrace.cli.main import main; main(['store', 'migrate', 'postgresql://x/y'])",
        "from headrace import postgres",
    ],
)
def test_missing_extra_is_named(code: str) -> None:
    without = f"import sys; sys.modules['psycopg'] = None; {code}"
    ran = subprocess.run([sys.executable, "-c", without], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "pip install 'headrace[postgres]'" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [["serve", "."], ["worker", "tasks:app"]])
def test_address_without_its_scheme_is_no_brokers_folder(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, "--broker", "localhost:9324")

    assert result.code == 2
    assert (
        "--broker localhost:9324: that is an address, and no folder: a broker is named as http://HOST:PORT"
        in result.err
    )
