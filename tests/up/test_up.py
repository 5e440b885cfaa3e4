"""`headrace up` as users run it: real services, real signals."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import urllib.request
from pathlib import Path

import pytest

import headrace
from tests.broker_process import run_command, wait_until
from tests.patience import PATIENCE_S
from tests.up.up_process import BROKER, STREAM, WEB, UpProcess, up

ALL = BROKER + WEB + STREAM
COMMAND = [sys.executable, "-m", "headrace", "up"]


def send(one: UpProcess, *values: int) -> None:
    with headrace.connect(one.folder / "data") as client:
        client.queue("events", create=True).send_many([{"k": "a", "v": value} for value in values])


def received(one: UpProcess, count: int) -> list[int]:
    found: list[int] = []
    with headrace.connect(one.folder / "data", patience=PATIENCE_S) as client:
        queue = client.queue("out", create=True)
        while len(found) < count:
            for message in queue.receive(wait=20):
                found.append(message.json()["v"])
                message.delete()
    return found


def index(one: UpProcess, service: str, action: str) -> int:
    return one.actions().index((service, action))


def test_parts_start_in_order_work_together_and_stop_in_order(tmp_path: Path) -> None:
    with up(tmp_path, ALL) as one:
        one.url_of("web")
        assert index(one, "broker", "broker.ready") < index(one, "web", "web.ready") < index(one, "up", "up.ready")
        body = urllib.request.urlopen(one.url_of("web") + "/hello", timeout=PATIENCE_S).read().decode()
        assert body == f"unix://{tmp_path}/data/headrace.sock"  # an app knows the broker without being told
        printed = one.wait_line(lambda line: line["message"].startswith("asked for"))
        assert (printed["service"], printed["action"], printed["message"]) == ("web", "up.output", "asked for /hello")
        send(one, 1, 2)
        assert sorted(received(one, 2)) == [2, 4]
        assert one.stop() == 0
        order = [
            ("web", "web.stopped"),
            ("broker", "broker.stopping"),
            ("broker", "broker.stopped"),
            ("up", "up.stopped"),
        ]
        assert [pair for pair in one.actions() if pair in order] == order
        ended = next(n for n, line in enumerate(one.all_lines()) if "rows in" in line["message"])
        assert index(one, "web", "web.stopped") < ended < index(one, "broker", "broker.stopping")
        assert one.pids() == set()


def test_a_part_that_is_killed_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with up(tmp_path, ALL) as one:
        for number, service in enumerate(("stream.doubled", "web", "broker")):
            send(one, number)
            os.kill(one.pid_of(service), signal.SIGKILL)
            ended = one.wait_action("up.service.ended", of=service)
            assert "killed by SIGKILL" in ended["message"]
            one.wait_action("up.service.ready", of=service)
        send(one, 3)
        assert sorted(received(one, 4)) == [0, 2, 4, 6]
        assert urllib.request.urlopen(one.url_of("web"), timeout=PATIENCE_S).status == 200
        assert one.stop() == 0


def test_children_end_with_a_supervisor_that_is_killed_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, ALL) as one:
        send(one, 1)
        one.process.kill()
        one.process.wait()
        wait_until(lambda: not one.pids())
    with up(tmp_path, ALL) as other:
        send(other, 2)
        assert sorted(received(other, 2)) == [2, 4]


def test_a_second_one_in_the_folder_is_refused(tmp_path: Path) -> None:
    with up(tmp_path, BROKER) as one:
        refused = run_command(COMMAND, cwd=tmp_path)
        assert refused.returncode == 1
        assert f"another `headrace up` runs in {tmp_path}" in refused.stderr
        assert one.stop() == 0


def test_a_part_that_keeps_ending_is_shown_as_failing_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no luck')\n")
    with up(tmp_path, WEB + '[stream.broken]\nfile = "broken.py"\nbroker = "none"\n') as one:
        one.seen = 0
        failing = one.wait_action("up.service.failing")
        assert failing["of"] == "stream.broken" and "no luck" in failing["said"]
        assert urllib.request.urlopen(one.url_of("web"), timeout=PATIENCE_S).status == 200
        assert one.stop() == 0


def test_a_part_that_refuses_its_settings_at_the_start_ends_it_all(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("nonsense")
    (tmp_path / "headrace.toml").write_text(BROKER + 'keys = "keys.toml"\n')
    ended = run_command(COMMAND, cwd=tmp_path)
    assert ended.returncode == 2
    assert "broker cannot run as it is set" in ended.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (None, "headrace init"),
        ("[brokr]\n", "did you mean 'broker'"),
        ("[up]\n", "names nothing to run"),
        ("[broker]\nprot = 1\n", "did you mean 'port'"),
        ("[broker]\nhost = '0.0.0.0'\n", "--keys"),
        ("[broker.a]\nport = 1\n", "there is one broker only"),
        ("[worker]\nprocesses = 1\n", "app is missing"),
        ("[stream.a]\nfile = 'none.py'\n", "none.py: cannot be read: No such file"),
    ],
)
def test_a_file_that_is_wrong_is_refused_before_anything_starts(
    tmp_path: Path, settings: str | None, says: str
) -> None:
    if settings is not None:
        (tmp_path / "headrace.toml").write_text(settings)
    ended = run_command(COMMAND, cwd=tmp_path)
    assert (ended.returncode, says in ended.stderr) == (2, True), ended.stderr


def test_hup_does_what_the_file_has_changed_and_no_more(tmp_path: Path) -> None:
    with up(tmp_path, ALL) as one:
        web, stream = one.pid_of("web"), one.pid_of("stream.doubled")

        one.write("[broker\n")
        one.signal(signal.SIGHUP)
        assert "not reloaded, nothing has changed" in one.wait_action("up.reload.failed")["message"]

        one.write(BROKER + WEB + "threads = 3\n" + STREAM)  # the web server changes that without a restart
        one.signal(signal.SIGHUP)
        one.wait_action("web.reload.done")
        assert (one.pid_of("web"), one.pid_of("stream.doubled")) == (web, stream)

        (tmp_path / "pipeline.py").write_text((tmp_path / "pipeline.py").read_text() + "# newer\n")
        one.signal(signal.SIGHUP)
        assert one.wait_action("up.reloaded")["restarted"] == "stream.doubled"

        one.write(BROKER + WEB.replace("[web]", "[web.shop]") + STREAM)
        one.signal(signal.SIGHUP)
        told = one.wait_action("up.reloaded")
        assert (told["stopped"], told["started"], told["restarted"]) == ("web", "web.shop", "")
        assert urllib.request.urlopen(one.url_of("web.shop"), timeout=PATIENCE_S).status == 200
        assert not Path(f"/proc/{web}").exists()

        one.write(BROKER + "cooldowns = false\n" + WEB.replace("[web]", "[web.shop]"))
        one.signal(signal.SIGHUP)
        told = one.wait_action("up.reloaded")
        assert (told["stopped"], told["restarted"]) == ("stream.doubled", "broker")
        assert ("broker", "broker.stopped") in one.actions()
        assert one.stop() == 0


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from headrace.process import notify_systemd
notify_systemd("READY=1")
while True:
    time.sleep(60)
"""


def test_what_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    settings = BROKER + '[stream.stubborn]\nfile = "stubborn.py"\n[up]\ndrain = "200ms"\n'
    with up(tmp_path, settings) as one:
        assert one.stop() == 1
        killed = next(line for line in one.all_lines() if line.get("action") == "up.killed")
        assert "stream.stubborn" in killed["services"]
        assert "up.service.ended" not in {action for _, action in one.actions()}, "what is killed is not started again"
        assert one.pids() == set()


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    with up(tmp_path, BROKER + '[stream.stubborn]\nfile = "stubborn.py"\n') as one:
        one.signal(signal.SIGINT)
        one.wait_action("up.stopping")
        one.signal(signal.SIGINT)
        assert one.process.wait(PATIENCE_S) == 1
        wait_until(lambda: not one.pids())


LEAVES = """
import subprocess
subprocess.Popen(["sleep", "600"])
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"fine"]
"""


def test_what_an_app_has_left_behind_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(LEAVES)
    with up(tmp_path, BROKER + '[web]\napp = "leaves:app"\nport = 0\nworkers = 1\n') as one:
        left = [pid for pid in one.pids() if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
        assert left
        assert one.stop() == 0
        wait_until(lambda: not one.pids())


def test_a_terminal_that_is_closed_stops_it(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(BROKER)
    shown, terminal = os.openpty()
    process = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one call of the kernel
    )
    os.close(terminal)
    try:
        seen = b""
        while b"headrace.toml anew" not in seen:  # the last line of the banner
            seen += os.read(shown, 65_536)
        os.close(shown)
        assert process.wait(PATIENCE_S) == 0
        assert not (tmp_path / "data" / "headrace.sock").exists()
    finally:
        process.kill()
        process.wait()


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE_S)
        notes = iter(lambda: manager.recv(500), b"STOPPING=1")
        with up(tmp_path, BROKER, env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "20000"}) as one:
            assert [next(notes) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            one.signal(signal.SIGHUP)
            reloading = next(note for note in notes if note != b"WATCHDOG=1")
            assert reloading.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert next(note for note in notes if note != b"WATCHDOG=1") == b"READY=1"
            one.signal(signal.SIGTERM)
            assert set(notes) <= {b"WATCHDOG=1"}  # until STOPPING=1
            assert one.process.wait(PATIENCE_S) == 0
