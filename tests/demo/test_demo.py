"""The whole demo, small, as it is run: by itself, and at a terminal with every key."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import pytest

from headrace.testing.postgres import find_programs

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 540.0
# One at a time, and alone: a folder has one `headrace up`, and keys are to be pressed while the flow runs.
pytestmark = pytest.mark.serial


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--data", str(folder), *arguments]


def test_unattended_every_harm_is_done_and_the_ledger_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "run", "--flights", "4000", "--rate", "20"),
        cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("web worker", "task worker", "pipeline", "broker"):
        assert done.stdout.count(f"{part} killed with SIGKILL") == 1, done.stdout
    assert re.search(
        r"Nothing was lost, every window is right\. [\d,]+ flights, harm: web, worker, pipeline, broker, poison, spike",
        done.stdout,
    )
    assert done.stdout.count("[bold]") == 0
    assert "headrace init shop" in done.stdout


@pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")
def test_on_postgres_one_of_two_brokers_is_killed_and_the_ledger_holds(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    done = subprocess.run(
        command(tmp_path / "run", "--store", "postgres", "--flights", "6000", "--rate", "20"),
        cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("one of two brokers killed with SIGKILL") == 1, done.stdout
    assert "Nothing was lost, every window is right" in done.stdout


def test_a_machine_without_postgres_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = pytest.importorskip("demo.nodes", reason="the extra `postgres` is not installed")
    monkeypatch.setattr(nodes, "find_programs", lambda: None)
    with pytest.raises(RuntimeError, match="apt-get install postgresql"):
        nodes.Database()


def test_keys_do_harm_and_end_it_and_the_terminal_is_as_it_was(tmp_path: Path) -> None:
    with Terminal(command(tmp_path / "run", "--flights", "30000", "--rate", "20")) as terminal:
        before = termios.tcgetattr(terminal.fd)
        terminal.wait_for("harm so far: none")
        assert not termios.tcgetattr(terminal.fd)[3] & termios.ICANON
        for key, news in (
            ("t", "task worker killed"),
            ("f", "10 poison messages fed"),
            ("b", "broker killed"),
            ("c", "console:"),
        ):
            terminal.press(key)
            terminal.wait_for(news)
        terminal.press("q")
        terminal.wait_for("Nothing was lost")
        assert terminal.end() == 0
        assert termios.tcgetattr(terminal.fd) == before


def test_a_demo_that_is_told_to_stop_leaves_nothing_running_and_the_terminal_as_it_was(tmp_path: Path) -> None:
    with Terminal(command(tmp_path / "run", "--flights", "30000", "--rate", "20")) as terminal:
        before = termios.tcgetattr(terminal.fd)
        terminal.wait_for("harm so far: none")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal.fd) == before
    assert '"action":"up.stopped"' in (tmp_path / "run" / "up.log").read_text()


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self.fd, child = pty.openpty()
        termios.tcsetwinsize(child, (50, 120))
        environ = {**os.environ, "TERM": "xterm", "BROWSER": "true"}
        for name in ("LINES", "COLUMNS"):  # readline has left them in what processes of xdist inherit: 24 and 80
            environ.pop(name, None)
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=child, stdout=child, stderr=child, start_new_session=True
        )
        self._child = child
        self.pid = self._process.pid
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self.end()
        os.close(self.fd)
        os.close(self._child)

    def press(self, key: str) -> None:
        self._said = ""
        os.write(self.fd, key.encode())

    def wait_for(self, text: str) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while text not in self._said:
            assert time.monotonic() < deadline_s, self._said[-4_000:]
            assert self._read() or self._process.poll() is None, self._said[-4_000:]

    def end(self) -> int:
        deadline_s = time.monotonic() + WITHIN_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline_s, self._said[-4_000:]
            self._read()
        return self._process.returncode

    def _read(self) -> bool:
        """What it has written, or nothing within a moment."""
        ready, _, _ = select.select([self.fd], [], [], 0.1)
        if ready:
            self._said += os.read(self.fd, 65_536).decode(errors="replace")
        return bool(ready)
