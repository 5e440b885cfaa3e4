"""`headrace init`: what it writes runs, as its README says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

import headrace
from headrace.up.plan import make_plan
from headrace.up.starter import TEMPLATES, contents
from tests.broker_process import run_command, wait_until
from tests.patience import PATIENCE_S
from tests.up.up_process import UpProcess

HEADRACE = [sys.executable, "-m", "headrace"]


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command([*HEADRACE, "init", *arguments], cwd=folder)


@pytest.mark.parametrize("template", TEMPLATES)
def test_settings_of_each_template_are_a_plan(tmp_path: Path, template: str) -> None:
    assert init(tmp_path, "shop", "--template", template).returncode == 0
    plan = make_plan(environ={}, folder=tmp_path / "shop")
    sections = {service.section for service in plan.services}
    assert sections == {*TEMPLATES[template].sections, "console"}


def test_without_the_extra_the_pipeline_is_commented_out() -> None:
    text = contents(TEMPLATES["full"], with_streams=False)["headrace.toml"]
    assert "stream" not in tomllib.loads(text) and "pip install" in text


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text("mine")
    refused = init(tmp_path)
    assert refused.returncode == 1 and "web.py already" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["web.py"]
    assert (tmp_path / "web.py").read_text() == "mine"


def test_its_tests_pass(tmp_path: Path) -> None:
    init(tmp_path)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    ran = run_command(tests, cwd=tmp_path, within_s=500)
    assert ran.returncode == 0, ran.stdout
    ran = run_command([*HEADRACE, "stream", "test", "pipeline.py"], cwd=tmp_path)
    assert ran.returncode == 0 and "1 passed" in ran.stderr + ran.stdout


class Starter(UpProcess):
    """The project that init wrote, on free ports."""

    def __init__(self, folder: Path) -> None:
        text = (folder / "headrace.toml").read_text()
        super().__init__(folder, re.sub(r"port = \d+", "port = 0", text))


def test_it_runs_an_order_becomes_a_task_that_runs_and_a_total(tmp_path: Path) -> None:
    told = init(tmp_path)
    assert "headrace up" in told.stdout and "curl" in told.stdout
    one = Starter(tmp_path)
    try:
        one.wait_action("up.ready")
        assert "up.service.ended" not in {action for _, action in one.actions()}, "no service waits for the first order"
        url = one.url_of("web")
        order = urllib.request.Request(url + "/orders", data=b'{"book": "Moby Dick", "count": 2}')
        accepted = json.load(urllib.request.urlopen(order, timeout=PATIENCE_S))

        def status() -> str:
            answer = json.load(urllib.request.urlopen(url + accepted["look_at"], timeout=PATIENCE_S))
            return str(answer["status"])

        wait_until(lambda: status() == "succeeded")
        durable = urllib.request.Request(url + "/import", data=b'[{"book": "Emma", "count": 1}]')
        assert urllib.request.urlopen(durable, timeout=PATIENCE_S).status == 202
        with headrace.connect(tmp_path / "data") as client:
            wait_until(lambda: client.queue("packed").counts().sent >= 2)
            client.queue("packed").send({"book": "Emma", "count": 3, "ts": "2100-01-01T00:00:01"})
            totals = client.queue("totals", create=True)
            first, *_ = wait_until(lambda: totals.receive(wait=20))
            assert first.json()["book"] in ("Moby Dick", "Emma")
        assert "headrace" in urllib.request.urlopen(one.url_of("console"), timeout=PATIENCE_S).read().decode()
        assert one.stop() == 0
    finally:
        one.end()
