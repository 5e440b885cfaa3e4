"""`headrace console` as a process: from its flags, beside a broker that comes and goes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from headrace.console import access
from tests.broker_process import ServerProcess, broker, run_command
from tests.patience import PATIENCE_S

COMMAND = [sys.executable, "-m", "headrace", "console"]


def test_it_runs_beside_a_broker_and_stops_by_term(tmp_path: Path) -> None:
    with broker(tmp_path / "data") as node:
        environ = {"HEADRACE_BROKER": node.url, "HEADRACE_CONSOLE__PORT": "0"}
        console = ServerProcess([*COMMAND, "--log-format", "json"], cwd=tmp_path, env=environ)
        try:
            ready = console.wait_for("console.ready")
            assert ready["broker"] == node.url
            console.port = int(ready["url"].rpartition(":")[2])
            status, body = console.get("/")
            assert status == 200 and b"No queues yet" in body
            console.signal(signal.SIGTERM)
            assert console.process.wait(PATIENCE_S) == 0
        finally:
            if console.process.poll() is None:
                console.process.kill()
                console.process.wait()
            assert console.process.stderr is not None
            console.process.stderr.close()


def test_it_starts_before_its_broker(tmp_path: Path) -> None:
    console = ServerProcess([*COMMAND, "--broker", "data", "--port", "0", "--log-format", "json"], cwd=tmp_path, env={})
    try:
        console.port = int(console.wait_for("console.ready")["url"].rpartition(":")[2])
        assert console.get("/health/ready")[0] == 503
        with broker(tmp_path / "data"):
            console.wait_for("console.broker_back")
            assert console.get("/health/ready")[0] == 200
    finally:
        console.process.kill()
        console.process.wait()
        assert console.process.stderr is not None
        console.process.stderr.close()


def test_it_says_why_it_does_not_start(tmp_path: Path) -> None:
    for arguments, reason in (
        (["--host", "0.0.0.0"], "--users"),
        (["--broker", "ftp://x"], "ftp://x"),
        (["--users", "none.toml"], "none.toml"),
    ):
        done = run_command([*COMMAND, *arguments], cwd=tmp_path)
        assert done.returncode in (1, 2) and reason in done.stderr, done


def test_a_line_of_stdin_is_hashed() -> None:
    done = hash_of("long enough\n")
    assert access.password_fits("long enough", done.stdout.strip())
    assert not access.password_fits("long enough!", done.stdout.strip())
    assert done.stderr == ""


def test_no_password_is_a_wrong_call() -> None:
    done = hash_of("")
    assert done.returncode == 2 and "a line of standard input" in done.stderr


def hash_of(given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "--hash-password"], input=given, capture_output=True, text=True, check=False)
