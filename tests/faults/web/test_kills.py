"""Processes of the web server are killed under traffic: no request fails but what nobody may repeat."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.web.traffic import APPS, Traffic, traffic
from tests.web.web_process import WebProcess, serve, wait_until

pytestmark = pytest.mark.serial

IMPORT_S = os.environ.get("HEADRACE_TEST_IMPORT_S", "1")
"""How long the slow app takes to import; 5 is what was promised."""
SPEEDS = [("wsgi", "0", "on"), ("asgi", "0", "on"), ("wsgi", IMPORT_S, "on"), ("asgi", IMPORT_S, "off")]
"""Kind of app, seconds that its import takes, --preload."""


def write(folder: Path, version: str, kind: str = "wsgi") -> None:
    (folder / "shop.py").write_text(APPS[kind].replace("VERSION", version))


def environment(import_s: str = "0") -> dict[str, str]:
    """Nothing is cached: a changed source is new code, though it is as long and as old to the second."""
    return {"IMPORT_S": import_s, "PYTHONDONTWRITEBYTECODE": "1"}


def two(server: WebProcess) -> set[int]:
    found = server.workers()
    return found if len(found) == 2 else set()


def pass_by(running: Traffic, count: int = 60) -> None:
    """Let so many more requests be answered."""
    goal = len(running.outcomes) + count
    wait_until(lambda: running.answered_since(goal))


def kill_each_worker_in_turn(server: WebProcess, running: Traffic) -> None:
    for victim in sorted(server.workers()):
        before = wait_until(lambda: two(server))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(server.workers() - before) == 1)  # noqa: B023 - used at once
        pass_by(running)


def metric(server: WebProcess, start: str) -> float:
    public, address = server.port, next(line for line in server.lines if line.get("action") == "web.ready")["admin"]
    server.port = int(str(address).rpartition(":")[2])
    try:
        found = [line for line in server.text("/metrics").splitlines() if line.startswith(start)]
        return sum(float(line.rpartition(" ")[2]) for line in found)
    finally:
        server.port = public


@pytest.mark.parametrize(
    ("kind", "import_s", "preload"), SPEEDS, ids=["wsgi", "asgi", "wsgi-slow", "asgi-slow-no-preload"]
)
def test_each_worker_is_killed_and_only_posts_in_flight_fail(
    tmp_path: Path, kind: str, import_s: str, preload: str
) -> None:
    write(tmp_path, "one", kind)
    arguments = ["--workers", "2", "--preload", preload, "--admin", "127.0.0.1:0"]
    with serve(tmp_path, "shop:app", *arguments, env=environment(import_s)) as server:
        with traffic(server.port) as running:
            pass_by(running)
            kill_each_worker_in_turn(server, running)
        assert running.failed() == []
        wait_until(lambda: metric(server, "headrace_web_failed_total") == running.lost_posts())
        assert server.stop() == 0


def test_all_workers_are_killed_at_once_and_requests_wait_for_the_next(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", "--preload", "off", env=environment(IMPORT_S)) as server:
        with traffic(server.port, rate=100) as running:
            for _ in range(2):
                pass_by(running)
                for victim in wait_until(lambda: two(server)):
                    os.kill(victim, signal.SIGKILL)
                pass_by(running)
        assert running.failed() == []
        assert server.stop() == 0


@pytest.mark.parametrize("import_s", ["0", IMPORT_S], ids=["quick", "slow"])
def test_the_fork_server_is_killed_and_no_request_fails(tmp_path: Path, import_s: str) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment(import_s)) as server:
        before = server.workers()
        with traffic(server.port) as running:
            pass_by(running)
            os.kill(min(server.fork_servers()), signal.SIGKILL)
            server.wait_for("web.reloaded")
            pass_by(running)
        assert (running.failed(), running.lost_posts()) == ([], 0)
        wait_until(lambda: two(server) and not two(server) & before)
        assert server.stop() == 0


def test_workers_and_their_fork_server_are_killed_and_all_are_replaced(tmp_path: Path) -> None:
    """The fork server cannot tell any more how its workers have ended."""
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment()) as server:
        before, (fork_server,) = server.workers(), server.fork_servers()
        with traffic(server.port, posts=0) as running:
            os.kill(fork_server, signal.SIGSTOP)
            for victim in before:
                os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not any(_is_alive(pid) for pid in before))
            os.kill(fork_server, signal.SIGKILL)
            pass_by(running)
            wait_until(lambda: two(server) and not two(server) & before)
        assert running.failed() == []
        assert server.stop() == 0


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_edge_is_killed_and_only_what_it_had_fails(tmp_path: Path) -> None:
    """Its connections die with it; whoever connects meanwhile waits in the kernel's backlog for the next one."""
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment()) as server:
        with traffic(server.port) as running:
            pass_by(running)
            (edge,) = server.edges()
            killed_s = time.monotonic()
            os.kill(edge, signal.SIGKILL)
            wait_until(lambda: not _is_alive(edge))
            gone_s = time.monotonic()
            wait_until(lambda: server.edges() - {edge})
            pass_by(running)
        assert {(one.status, one.error) for one in running.failed()} <= {(0, "cut")}
        assert [one for one in running.failed() if one.began_s > gone_s or one.ended_s < killed_s] == []
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_the_supervisor_is_killed_and_the_port_is_free_at_once_when_all_have_ended(tmp_path: Path, mode: str) -> None:
    write(tmp_path, "one")
    arguments = ["--workers", "2", "--drain", "1s", *(["--direct"] if mode == "direct" else [])]
    with serve(tmp_path, "shop:app", *arguments, env=environment()) as server:
        with traffic(server.port) as running:
            pass_by(running)
            os.kill(server.process.pid, signal.SIGKILL)
            server.wait_end()
        # What had come was answered, or cut because it came on a connection that was about to close; nothing was wrong.
        assert {one.status for one in running.outcomes} <= {0, 200}
        with socket.create_server(("127.0.0.1", server.port)):
            pass


def _kill_in_a_loop(server: WebProcess, running: Traffic) -> None:
    for _ in range(3):
        for victim in wait_until(lambda: two(server)):
            os.kill(victim, signal.SIGKILL)
        pass_by(running, 20)


def _kill_two_generations(server: WebProcess, running: Traffic) -> None:
    server.signal(signal.SIGHUP)
    pass_by(running, 20)
    for victim in server.workers() | server.fork_servers():
        with suppress(ProcessLookupError):  # the older ones are on their way out
            os.kill(victim, signal.SIGKILL)
    pass_by(running, 20)


@pytest.mark.parametrize("act", [_kill_in_a_loop, _kill_two_generations], ids=["crash-loop", "within-a-reload"])
def test_many_kills_in_a_row_lose_nothing_that_may_be_repeated(
    tmp_path: Path, act: Callable[[WebProcess, Traffic], None]
) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment()) as server:
        with traffic(server.port, rate=100) as running:
            pass_by(running)
            act(server, running)
            wait_until(lambda: two(server))
            pass_by(running)
        bad = [one for one in running.failed() if one.status != 502]  # with three workers that were killed: given up
        assert bad == []
        assert len(running.failed()) <= 5
        assert server.stop() == 0
