"""What can happen to the processes of the web server: new code, broken code, kills, hangs, crash loops, upgrades."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

pytestmark = pytest.mark.serial

APP = """
import os, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        os.kill(os.getpid(), 9)
    if path == "/hang":
        time.sleep(3600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"VERSION %d" % os.getpid()]
"""

ASYNC = """
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        LIFESPAN
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["path"] == "/die":
        os.kill(os.getpid(), 9)
    if scope["path"] == "/hang":
        await asyncio.sleep(3600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"VERSION %d" % os.getpid()})
"""

KINDS = {"wsgi": APP, "asgi": ASYNC}


def write(folder: Path, version: str, *, kind: str = "wsgi", lifespan: str = "pass") -> None:
    # A new name is a new file: Python compares a cached module with its source by the second.
    # It is gone before the source changes, which may be noticed at once.
    for cached in (folder / "__pycache__").glob("shop*"):
        cached.unlink()
    (folder / "shop.py").write_text(KINDS[kind].replace("VERSION", version).replace("LIFESPAN", lifespan))


def touched(folder: Path) -> bool:
    """Until it is noticed: a server is ready before the system has begun to watch its files."""
    os.utime(folder / "shop.py")
    return True


def version(server: WebProcess) -> str:
    return server.text().split()[0]


class Load:
    """A client that asks without end, on a connection that it keeps; every answer is noted."""

    def __init__(self, port: int) -> None:
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
            try:
                for _ in range(20):
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses.append(answer.status)
                    if answer.will_close or self._stop.is_set():
                        break
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
            finally:
                connection.close()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        assert self.errors == []
        assert set(self.statuses) == {200}


@contextmanager
def load(server: WebProcess, clients: int = 3) -> Iterator[list[Load]]:
    """Requests all the while; none may fail."""
    all_of_them = [Load(server.port) for _ in range(clients)]
    for one in all_of_them:
        one.start()
    try:
        yield all_of_them
    finally:
        for one in all_of_them:
            one.stop()
    for one in all_of_them:
        one.check()


def _two(server: WebProcess) -> set[int]:
    """Both workers, or nobody."""
    found = server.workers()
    return found if len(found) == 2 else set()


# ---------------------------------------------------------------------------------------------------------- reload


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("preload", ["on", "off"])
def test_hup_brings_new_code_without_a_failed_request(tmp_path: Path, kind: str, preload: str) -> None:
    write(tmp_path, "one", kind=kind)
    with serve(tmp_path, "shop:app", "--workers", "2", "--preload", preload) as server:
        with load(server):
            for name in ("two", "three"):
                write(tmp_path, name, kind=kind)
                server.signal(signal.SIGHUP)
                server.wait_for("web.reload.done")
                assert version(server) == name
        assert server.stop() == 0


def test_hup_in_direct_mode_brings_new_code(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", "--direct") as server:
        with load(server, clients=2):
            write(tmp_path, "two")
            server.signal(signal.SIGHUP)
            server.wait_for("web.reload.done")
            assert wait_until(lambda: {version(server) for _ in range(10)} == {"two"})
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("kind", "code"),
    [("wsgi", "1 / 0"), ("asgi", "raise SystemExit(3)"), ("wsgi", "import os; os.kill(os.getpid(), 9)"), ("asgi", "")],
    ids=["error", "exit", "killed", "lifespan"],
)
def test_hup_with_broken_code_leaves_the_old_serving_and_says_why(tmp_path: Path, kind: str, code: str) -> None:
    write(tmp_path, "one", kind=kind)
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        with load(server):
            if code:
                (tmp_path / "shop.py").write_text(code + "\n")
            else:
                failed = 'return await send({"type": "lifespan.startup.failed", "message": "no database"})'
                write(tmp_path, "two", kind=kind, lifespan=failed)
            server.signal(signal.SIGHUP)
            failure = server.wait_for("web.reload.failed")
            assert failure["level"] == "error"
            assert version(server) == "one"
            if not code:
                assert "no database" in failure["message"]
            write(tmp_path, "three", kind=kind)
            server.signal(signal.SIGHUP)
            server.wait_for("web.reload.done")
            assert version(server) == "three"
        assert server.stop() == 0


def test_hup_with_broken_settings_leaves_the_old_serving(tmp_path: Path) -> None:
    write(tmp_path, "one")
    file = tmp_path / "headrace.toml"
    file.write_text("[web]\nworkers = 1\n")
    with serve(tmp_path, "shop:app") as server:
        file.write_text("[web]\nwrkers = 1\n")
        server.signal(signal.SIGHUP)
        assert "wrkers" in server.wait_for("web.reload.failed")["message"]
        assert version(server) == "one"
        assert server.stop() == 0


def test_hup_reads_routes_and_the_number_of_workers_anew(tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "other.py").write_text(APP.replace("VERSION", "other"))
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("a file")
    file = tmp_path / "headrace.toml"
    file.write_text("[web]\nworkers = 1\n")
    with serve(tmp_path, "shop:app") as server:
        assert server.text("/files/a.txt").startswith("one")
        file.write_text(
            '[web]\nworkers = 2\n[[web.routes]]\npath = "/files"\nstatic = "public"\n'
            '[[web.routes]]\npath = "/other"\napp = "other:app"\n'
        )
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.done")
        assert server.text("/files/a.txt") == "a file"
        assert server.text("/other").startswith("other")
        assert server.text("/").startswith("one")
        assert wait_until(lambda: len(server.workers()) == 4)
        assert server.stop() == 0


def test_hup_with_broken_code_takes_the_number_of_workers_back(tmp_path: Path) -> None:
    write(tmp_path, "one")
    file = tmp_path / "headrace.toml"
    file.write_text("[web]\nworkers = 1\n")
    with serve(tmp_path, "shop:app") as server:
        file.write_text("[web]\nworkers = 2\n")
        (tmp_path / "shop.py").write_text("1 / 0\n")
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.failed")
        wait_until(lambda: len(server.workers()) == 1)
        assert version(server) == "one"
        assert server.stop() == 0


def test_hup_in_direct_mode_leaves_no_socket_without_a_worker(tmp_path: Path) -> None:
    write(tmp_path, "one")
    file = tmp_path / "headrace.toml"
    file.write_text("[web]\nworkers = 3\n")
    with serve(tmp_path, "shop:app", "--direct") as server:
        file.write_text("[web]\nworkers = 1\n")
        server.signal(signal.SIGHUP)
        server.wait_for("web.resize.refused")
        server.wait_for("web.reload.done")
        assert {version(server) for _ in range(30)} == {"one"}  # the kernel deals them out over all sockets
        assert server.stop() == 0


def test_hup_with_a_new_app_that_is_broken_changes_nothing_and_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "other.py").write_text(APP.replace("VERSION", "other"))
    file = tmp_path / "headrace.toml"
    file.write_text("")
    route = '[[web.routes]]\npath = "/other"\napp = "{}:app"\n'
    with serve(tmp_path, "shop:app", "--workers", "1", "--admin", "127.0.0.1:0") as server:
        admin = server.lines[-1]["admin"]
        file.write_text(route.format("broken"))
        server.signal(signal.SIGHUP)
        assert "division by zero" in server.wait_for("web.reload.failed")["message"]
        assert server.text("/other").startswith("one")
        assert urllib.request.urlopen(f"{admin}/health/ready").status == 200
        file.write_text(route.format("other"))
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.done")
        assert server.text("/other").startswith("other")
        file.write_text("")
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.done")
        assert server.text("/other").startswith("one")
        assert wait_until(lambda: len(server.workers()) == 1), "nobody needs the other app's worker"
        file.write_text(route.format("other"))
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.done")
        assert server.text("/other").startswith("other"), "it comes back"
        assert server.stop() == 0


def test_term_ends_a_reload_whose_import_hangs(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1") as server:
        (tmp_path / "shop.py").write_text("import time; open('begun', 'w').close(); time.sleep(3600)\n")
        server.signal(signal.SIGHUP)
        assert wait_until((tmp_path / "begun").exists)
        assert version(server) == "one"
        assert server.stop() == 0


# ----------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_killed_workers_are_replaced_and_no_request_fails(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "one", kind=kind)
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        with load(server):
            for _ in range(3):
                before = wait_until(lambda: _two(server))
                victim = min(before)
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda: len(server.workers() - before) == 1)  # noqa: B023 - used at once
        assert server.stop() == 0


def test_a_killed_edge_is_started_again_and_workers_find_it(tmp_path: Path) -> None:
    for kind in ("wsgi", "asgi"):
        write(tmp_path, "one", kind=kind)
        with serve(tmp_path, "shop:app", "--workers", "1") as server:
            workers = server.workers()
            (edge,) = server.edges()
            os.kill(edge, signal.SIGKILL)
            wait_until(lambda: server.edges() - {edge})  # noqa: B023 - used at once
            assert version(server) == "one"  # it waits in the backlog meanwhile
            assert server.workers() == workers
            assert server.stop() == 0


def test_a_killed_fork_server_is_replaced_with_its_workers_and_no_request_fails(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        with load(server):
            wait_until(lambda: _two(server))  # it is ready with one
            (fork_server,) = server.fork_servers()
            old = server.processes()
            os.kill(fork_server, signal.SIGKILL)
            server.wait_for("web.reloaded")
            new = wait_until(lambda: _two(server))
            assert not new & old.keys()
            wait_until(lambda: len(server.processes()) == len(old))
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["edge", "direct"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_when_the_supervisor_is_killed_all_others_end(tmp_path: Path, kind: str, mode: str) -> None:
    write(tmp_path, "one", kind=kind)
    temporary = tmp_path / "t"
    temporary.mkdir()
    arguments = ["--direct"] if mode == "direct" else []
    env = {"TMPDIR": str(temporary)}
    with serve(tmp_path, "shop:app", "--workers", "2", *arguments, env=env) as server:
        assert version(server) == "one"
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.wait_end() == -signal.SIGKILL
        assert list(temporary.iterdir()) == []


def test_when_supervisor_and_fork_server_are_killed_workers_end_too(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        (fork_server,) = server.fork_servers()
        os.kill(server.process.pid, signal.SIGKILL)
        os.kill(fork_server, signal.SIGKILL)
        server.wait_end()


def test_a_worker_that_hangs_does_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1", "--drain", "200ms") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("GET", "/hang")
        wait_until(lambda: version(server) == "one")
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait_end()
        connection.close()


def test_a_crash_loop_backs_off_and_the_server_stays(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1") as server:
        for _ in range(4):
            assert server.get("/die", method="POST", body=b"x")[0] == 502
        assert version(server) == "one"
        for _ in range(4):
            server.wait_for("web.worker.ended")
        assert server.stop() == 0


def test_a_request_that_kills_its_workers_is_answered_502(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        assert server.get("/die")[0] == 502
        server.wait_for("web.request.poison")
        assert version(server) == "one"
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["edge", "direct"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_hung_worker_is_replaced_and_its_request_answered_504(tmp_path: Path, kind: str, mode: str) -> None:
    write(tmp_path, "one", kind=kind)
    arguments = ["--workers", "1", "--request-timeout", "2s", "--drain", "1s"]
    with serve(tmp_path, "shop:app", *arguments, *(["--direct"] if mode == "direct" else [])) as server:
        before = server.workers()
        assert server.get("/hang")[0] == 504
        server.wait_for("web.worker.hung")
        wait_until(lambda: server.workers() and not server.workers() & before)
        assert version(server) == "one"
        assert server.stop() == 0


# -------------------------------------------------------------------------------------------------------- replacing


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_a_worker_that_has_served_enough_is_replaced_without_a_failed_request(
    tmp_path: Path, kind: str, mode: str
) -> None:
    write(tmp_path, "one", kind=kind)
    arguments = ["--workers", "1", "--max-requests", "30", *(["--direct"] if mode == "direct" else [])]
    with serve(tmp_path, "shop:app", *arguments) as server:
        before = server.workers()
        if mode == "edge":
            with load(server):
                server.wait_for("web.worker.retiring")
                wait_until(lambda: not server.workers() & before)
        else:
            for _ in range(40):
                server.text()
            server.wait_for("web.worker.retiring")
            wait_until(lambda: not server.workers() & before)
            assert version(server) == "one"
        assert server.stop() == 0


def test_a_worker_with_too_much_memory_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "shop.py").write_text(
        APP.replace("VERSION", "one").replace(
            "if path ==", "if path == '/eat': app.food = b'x' * 200_000_000\n    if path ==", 1
        )
    )
    with serve(tmp_path, "shop:app", "--workers", "1", "--max-rss", "150MiB") as server:
        before = server.workers()
        server.text("/eat")
        assert "MiB" in server.wait_for("web.worker.retiring")["message"]
        wait_until(lambda: server.workers() and not server.workers() & before)
        assert server.stop() == 0


def test_term_to_a_worker_replaces_it_in_order(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1") as server:
        with load(server):
            (before,) = server.workers()
            os.kill(before, signal.SIGTERM)
            wait_until(lambda: server.workers() and before not in server.workers())
        assert server.stop() == 0


def test_ttin_and_ttou_change_the_number_of_workers(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1") as server:
        server.signal(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == 2)
        server.signal(signal.SIGTTOU)
        wait_until(lambda: len(server.workers()) == 1)
        server.signal(signal.SIGTTOU)
        assert version(server) == "one"
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_usr2_starts_a_new_supervisor_and_no_request_fails(tmp_path: Path, mode: str) -> None:
    write(tmp_path, "one")
    arguments = ["--workers", "1", *(["--direct"] if mode == "direct" else [])]
    with serve(tmp_path, "shop:app", *arguments) as server:
        with load(server, clients=2):
            write(tmp_path, "two")
            server.signal(signal.SIGUSR2)
            successor = server.wait_for("web.upgrade.started")["pid"]
            server.wait_for("web.upgrade.done")
            server.wait_for("web.stopped")
            assert server.process.wait(PATIENCE_S) == 0
            assert version(server) == "two"
        os.kill(int(str(successor)), signal.SIGTERM)
        server.wait_empty()


def test_usr2_with_broken_code_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1") as server:
        (tmp_path / "shop.py").write_text("1 / 0\n")
        server.signal(signal.SIGUSR2)
        server.wait_for("web.upgrade.failed")
        assert version(server) == "one"
        assert server.stop() == 0


def test_a_changed_file_reloads(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "1", "--reload") as server:
        write(tmp_path, "two")
        wait_until(lambda: touched(tmp_path) and any("web.file.changed" in line for line in server.raw))
        assert "shop.py" in server.wait_for("web.file.changed")["path"]
        server.wait_for("web.reload.done")
        assert version(server) == "two"
        assert server.stop() == 0


# ----------------------------------------------------------------------------------------------------------- admin


def test_the_admin_listener_tells_health_and_metrics(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", "--admin", "127.0.0.1:0") as server:
        admin = WebProcess.get
        address = next(line for line in server.lines if line.get("action") == "web.ready")["admin"]
        public, server.port = server.port, int(str(address).rpartition(":")[2])
        assert admin(server, "/health/live") == (200, b"live\n")
        assert admin(server, "/readyz") == (200, b"ready\n")
        wait_until(lambda: b'headrace_web_workers{state="serving"} 2' in admin(server, "/metrics")[1])
        assert admin(server, "/", method="POST")[0] == 405
        assert admin(server, "/none")[0] == 404
        server.port = public
        assert server.get("/health/live")[1].startswith(b"one")  # the app's own, not ours
        assert server.stop() == 0
