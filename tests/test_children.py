from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.children import BACKOFF_MAX_S, CALM_S, CRASH_S, Restarts, backoff_s, end_group, ending, spawn, wait_ready
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S

NO_SUCH = ["no-such-command"]


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_ending_is_told_in_words(code: int, words: str) -> None:
    assert ending(code) == words


def test_backoff_doubles_up_to_a_bound() -> None:
    waits = [backoff_s(crashes) for crashes in range(1_000)]
    assert waits[:4] == [0.0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_MAX_S


def test_a_child_that_dies_early_waits_longer_each_time_and_one_that_lived_does_not() -> None:
    restarts = Restarts()
    waits = []
    for now_s in (100.0, 101.0, 102.0):
        restarts.started(now_s)
        waits.append(restarts.ended(now_s + 0.1))
    assert waits == [0.1, 0.2, 0.4]
    restarts.started(200.0)
    assert restarts.ended(200.0 + CRASH_S) == 0.0
    assert restarts.crashes == 0


def test_early_deaths_that_are_far_apart_do_not_add_up() -> None:
    restarts = Restarts()
    for now_s in (100.0, 101.0 + CALM_S):
        restarts.started(now_s)
        assert restarts.ended(now_s + 1.0) == 0.1


def test_a_child_runs_the_command_with_an_empty_standard_input() -> None:
    child = spawn(["--version"], stdout=subprocess.PIPE)
    out, _ = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out.startswith(b"headrace ")) == (0, True)


def test_the_end_of_a_child_ends_the_wait_until_it_is_ready() -> None:
    child = spawn(NO_SUCH, stderr=subprocess.DEVNULL)
    assert asyncio.run(wait_ready(lambda: False, child, within_s=20)) is False
    assert child.returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
from headrace.children import spawn
child = spawn(["broker", "--data", "data", "--port", "0"], own_group=True)
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not _runs(pid))


def test_a_group_is_killed_whole(tmp_path: Path) -> None:
    child = spawn(
        ["broker", "--data", str(tmp_path / "data"), "--port", "0"], own_group=True, stderr=subprocess.DEVNULL
    )
    assert os.getpgid(child.pid) == child.pid
    end_group(child.pid)
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    end_group(child.pid)  # it is gone: nothing happens


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_CHILD_SUBREAPER is Linux's")
def test_orphans_are_reaped_and_own_children_left_alone() -> None:
    program = """
import ctypes, os, subprocess, sys
from headrace.children import reap_strangers
ctypes.CDLL(None).prctl(36, 1)  # orphans become ours, as those of a container become process 1's
orphan = subprocess.run([sys.executable, "-c", "import subprocess; print(subprocess.Popen(['true']).pid)"], capture_output=True)
own = subprocess.Popen(["true"])
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
while os.path.exists(f"/proc/{int(orphan.stdout)}"):
    reap_strangers({own.pid})
    own.poll()
assert own.wait() == 0
reap_strangers(set())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE_S, check=False).returncode == 0


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie: in a container nobody may reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
