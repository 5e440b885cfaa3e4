"""New code, broken code and the end, under traffic: nobody notices but by the answers' version."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.web.test_kills import SPEEDS, environment, pass_by, two, write
from tests.faults.web.traffic import traffic
from tests.web.web_process import serve, wait_until

pytestmark = pytest.mark.serial
KINDS = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


@pytest.mark.parametrize(
    ("kind", "import_s", "preload"), SPEEDS, ids=["wsgi", "asgi", "wsgi-slow", "asgi-slow-no-preload"]
)
def test_hups_bring_new_code_and_no_request_fails(tmp_path: Path, kind: str, import_s: str, preload: str) -> None:
    write(tmp_path, "v0", kind)
    with serve(tmp_path, "shop:app", "--workers", "2", "--preload", preload, env=environment(import_s)) as server:
        with traffic(server.port) as running:
            for number in (1, 2):
                pass_by(running)
                write(tmp_path, f"v{number}", kind)
                server.signal(signal.SIGHUP)
                server.wait_for("web.reload.done")
                reloaded_s = time.monotonic()
                pass_by(running)
                late = [one.version for one in running.outcomes if one.began_s > reloaded_s and one.ended_s]
                assert set(late) == {f"v{number}"}
        assert (running.failed(), running.lost_posts()) == ([], 0)
        assert set(running.versions()) == {"v0", "v1", "v2"}
        assert server.stop() == 0


@KINDS
def test_a_broken_deploy_changes_nothing_and_says_so(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "one", kind)
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment()) as server:
        before = server.workers()
        with traffic(server.port) as running:
            pass_by(running)
            (tmp_path / "shop.py").write_text("import a_module_that_was_not_deployed\n")
            server.signal(signal.SIGHUP)
            failure = server.wait_for("web.reload.failed")
            pass_by(running)
        assert failure["level"] == "error" and "a_module_that_was_not_deployed" in str(failure["message"])
        assert (running.failed(), running.lost_posts()) == ([], 0)
        assert set(running.versions()) == {"one"} and server.workers() == before
        assert server.stop() == 0


def test_a_worker_that_dies_within_a_reload_and_a_broken_deploy_are_healed(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with serve(tmp_path, "shop:app", "--workers", "2", env=environment()) as server:
        with traffic(server.port, posts=0) as running:
            pass_by(running)
            (tmp_path / "shop.py").write_text("1 / 0\n")
            server.signal(signal.SIGHUP)
            os.kill(min(server.workers()), signal.SIGKILL)
            server.wait_for("web.reload.failed")
            wait_until(lambda: two(server))
            write(tmp_path, "two")
            server.signal(signal.SIGHUP)
            os.kill(max(server.workers()), signal.SIGKILL)
            server.wait_for("web.reload.done")
            pass_by(running)
        assert running.failed() == []
        assert running.outcomes[-1].version == "two"
        assert server.stop() == 0


@KINDS
@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_term_answers_all_that_has_come(tmp_path: Path, kind: str, mode: str) -> None:
    write(tmp_path, "one", kind)
    arguments = ["--workers", "2", *(["--direct"] if mode == "direct" else [])]
    with serve(tmp_path, "shop:app", *arguments, env=environment()) as server:
        with traffic(server.port) as running:
            pass_by(running)
            ended_s = time.monotonic()
            server.signal(signal.SIGTERM)
            server.wait_for("web.stopping")
            assert server.wait_end() == 0
        assert [one for one in running.failed() if one.sent_s < ended_s] == []
        # From one moment on nobody is let in; a connection may have been made before, and its request not have come.
        refused = [one for one in running.failed() if one.error.startswith("ConnectionRefused")]
        assert [one for one in running.failed() if one not in refused and one.error != "cut"] == []
        assert running.lost_posts() == 0
        if refused:
            assert max(one.began_s for one in running.outcomes if one.status) <= min(one.ended_s for one in refused) + 2


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_hang_under_traffic_is_504_and_its_worker_is_replaced(tmp_path: Path, kind: str) -> None:
    sleep = "__import__('time').sleep(3600)"  # blocks the loop, too
    (tmp_path / "shop.py").write_text(_hanging(kind, sleep))
    # Longer than a worker may be silent: one whose loop is stuck is killed soon, one that only has a slow request is not.
    arguments = ["--workers", "2", "--request-timeout", "3s" if kind == "wsgi" else "3500ms", "--drain", "2s"]
    with serve(tmp_path, "shop:app", *arguments, env=environment()) as server:
        before = server.workers()
        with traffic(server.port, rate=100, posts=0) as running:
            pass_by(running)
            assert server.get("/hang", method="POST", body=b"x")[0] == 504
            server.wait_for("web.worker.hung")
            wait_until(lambda: len(server.workers() - before) == 1 and two(server))
            pass_by(running)
        # Those that had begun on the same loop are stuck behind it, and are given to the other worker when it is killed.
        assert {one.status for one in running.outcomes} <= {200} or kind == "asgi", running.failed()
        assert {one.status for one in running.outcomes} <= {200, 504}, running.failed()
        assert server.stop() == 0


def _hanging(kind: str, sleep: str) -> str:
    from tests.faults.web.traffic import APPS

    place = "    if path.startswith" if kind == "wsgi" else '    if scope["path"].startswith'
    condition = 'path == "/hang"' if kind == "wsgi" else 'scope["path"] == "/hang"'
    return APPS[kind].replace("VERSION", "one").replace(place, f"    if {condition}: {sleep}\n{place}", 1)
