"""Pages that are walked through: their files are written, their servers run, their commands print what they show.

Block by block, in the order of the page:

- a `python`, `toml`, … block whose first line is a comment with a file's name is that file;
- an `sh` block is a server, or what prepares one: `headrace broker|serve|work|console|up|stream run` stays until the end, or
  until one of its kind (or `headrace up`) is started;
- a `console` block has commands behind `$`, and what each prints; `…` stands for anything.

Ports of the page become free ones, the same in files and commands.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from headrace.testing.ports import free_ports
from tests.broker_process import ServerProcess, environment
from tests.patience import PATIENCE_S

DOCS = Path(__file__).parent.parent / "docs"
PORTS: Final = (9324, 8000, 9325, 8080)
"""Of the broker, the web server, the console and what stands in front: what the pages say."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?:# |/\* )(\w[\w./-]*\.\w+)(?: \*/)?\s*\n(.*)", re.DOTALL)
"""A file's name, and what is in it. Never an absolute one: a page that tells of /etc must not write there."""
READY: Final = {"broker": "broker.ready", "serve": "web.ready", "worker": "work.ready", "console": "console.ready", "up": "up.ready", "stream": "stream.taken"}  # fmt: skip
CHANGES = re.compile(r" -d |\b(send|receive|redrive|delete|create|call|kill|import|pack\w*\.py)\b")
"""Commands that are said once; all others are asked again until they print what the page shows."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page)]


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that it prints."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, *printed = part.strip().splitlines()
        yield command, [line.strip() for line in printed if line.strip()]


class Server(ServerProcess):
    """A server of a page; its whole process group ends with the test."""

    def __init__(self, line: str, folder: Path, env: Mapping[str, str]) -> None:
        words = shlex.split(line, comments=True)
        self.kind = words[1]
        super().__init__([sys.executable, "-m", *words], cwd=folder, env=env, start_new_session=True)
        self.wait_for(READY[self.kind])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._reader.join(PATIENCE_S)
            assert self.process.stderr is not None
            self.process.stderr.close()


class Walk:
    """A reader with a terminal, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []
        self.ports = {str(port): str(free) for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        broker, web, console, _ = self.ports.values()
        self.env = {
            "PATH": f"{folder / '.bin'}:{os.environ['PATH']}:/usr/sbin",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "COLUMNS": "120",
            "PYTHONDONTWRITEBYTECODE": "1",  # pages change files within the second by which Python compares cached ones
            "HEADRACE_BROKER": f"http://127.0.0.1:{broker}",
            "HEADRACE_BROKER__PORT": broker,
            "HEADRACE_WEB__PORT": web,
            "HEADRACE_CONSOLE__PORT": console,
            "HEADRACE_WEB__WORKERS": "1",
            **{
                f"HEADRACE_{part}__LOG_FORMAT": "json"
                for part in ("BROKER", "WEB", "WORKER", "CONSOLE", "UP", "STREAM")
            },
        }
        (folder / ".bin").mkdir()
        for name, program in (("headrace", f'{sys.executable} -m headrace "$@"'), ("python", f'{sys.executable} "$@"')):
            (folder / ".bin" / name).write_text(f"#!/bin/sh\nexec {program}\n")
            (folder / ".bin" / name).chmod(0o755)

    def through(self, page: str) -> int:
        """Do all that a page says; how many commands that were."""
        return sum(self._do(block) for block in blocks(page))

    def _do(self, block: Block) -> int:
        text = self._moved(block.text)
        if block.language == "sh":
            return sum(self._start(line) for line in text.splitlines())
        if block.language == "console":
            return sum(self._say(command, printed) for command, printed in commands(text))
        if named := NAMED.fullmatch(text):
            path = self.folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(named[2].lstrip("\n"))
        return 0

    def _moved(self, text: str) -> str:
        return re.sub(r"\b(9324|9325|8000|8080)\b", lambda port: self.ports[port[0]], text)

    def _start(self, line: str) -> int:
        words = shlex.split(line, comments=True)
        if words[:1] != ["headrace"]:
            return 0  # how to install something, or where to change to
        for old in [one for one in self.servers if words[1] in (one.kind, "up")][::-1]:
            old.end()  # pages say "Ctrl-C" in words
            self.servers.remove(old)
        self.servers.append(Server(line, self.folder, self.env))
        self.env["PID"] = str(self.servers[-1].process.pid)
        return 1

    def _say(self, command: str, printed: list[str]) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            code, output = self._run(command)
            missing = [line for line in printed if not _pattern(line).search(output)]
            if code == 0 and not missing:
                return 1
            again = not CHANGES.search(command) and time.monotonic() < deadline
            assert again, f"$ {command}\n{output}\nended with {code}, and has not: {missing}"
            time.sleep(0.1)  # servers are other processes

    def _run(self, command: str) -> tuple[int, str]:
        """How it ended, and what it has printed on a terminal."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                ["sh", "-c", command], cwd=self.folder, env=environment(**self.env), stdout=theirs, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            os.close(theirs)
        written = b"".join(_read(ours))
        os.close(ours)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;.*?\x1b\\", "", written.decode()).replace("\r\n", "\n")
        return process.wait(PATIENCE_S), text

    def end(self) -> None:
        """What was started last ends first."""
        while self.servers:
            self.servers.pop().end()


@contextmanager
def walk(folder: Path) -> Iterator[Walk]:
    one = Walk(folder)
    try:
        yield one
    finally:
        one.end()


def _pattern(line: str) -> re.Pattern[str]:
    """How wide a column is says nothing, nor a line's beginning and end."""
    parts = (re.escape(part) for part in line.split())
    return re.compile(r"\s+".join(parts).replace("…", ".*?"))


def _read(descriptor: int) -> Iterator[bytes]:
    with suppress(OSError):  # Linux's way to say that nobody writes any more
        while piece := os.read(descriptor, 65_536):
            yield piece
