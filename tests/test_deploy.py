"""The examples under deploy/: they parse, and every command, flag and variable in them exists."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from headrace.cli.main import cli
from headrace.settings import describe
from headrace.settings_file import CONFIG_VARIABLE, SERVICE_VARIABLE
from headrace.up.reference import kinds

yaml = pytest.importorskip("yaml")

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
VARIABLES = {setting.variable for section, kind in kinds().items() for setting in describe(kind, section)}
PLAIN = {CONFIG_VARIABLE, SERVICE_VARIABLE, "HEADRACE_BROKER", "HEADRACE_ACCESS_KEY", "HEADRACE_SECRET_KEY"}


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The parameters that a command line of headrace has; an error if a name in it does not exist."""
    command: click.Command = cli
    context = click.Context(cli, info_name="headrace")
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    made = command.make_context(command.name, arguments)
    return {name: value for name, value in made.params.items() if value not in (None, (), False)}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod's specification, container) of each workload."""
    pods = [
        one["spec"]["template"]["spec"] for path in MANIFESTS for one in documents(path) if "template" in one["spec"]
    ]
    return [(pod, container) for pod in pods for container in pod["containers"]]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_a_command_that_is_there_and_tells_when_it_is_ready(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # keys keep their case
    unit.read_string(path.read_text())
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program == "/opt/headrace/bin/headrace"
    assert parsed(arguments)
    assert service["Type"] == "notify"
    drain_s = {"up": 60, "broker": 14}[arguments[0]]
    assert int(service["TimeoutStopSec"]) > drain_s


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/headrace/bin/headrace", "/bin/true").replace("User=headrace\n", ""))
    ran = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert path.name not in ran.stderr, ran.stderr


def test_the_image_runs_as_a_user_with_one_volume_and_gets_signals() -> None:
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.MULTILINE)
    assert len(re.findall(r"^VOLUME ", DOCKERFILE, re.MULTILINE)) == 1
    (command,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    program, *arguments = json.loads(command)
    assert program == "headrace"
    parsed(arguments)
    (check,) = re.findall(r"^HEALTHCHECK.*\\\n  CMD (.*)$", DOCKERFILE, re.MULTILINE)
    compile(json.loads(check)[2], "HEALTHCHECK", "exec")
    assert "/health/ready" in check


def test_variables_exist() -> None:
    named = {
        name for path in DEPLOY.rglob("*") if path.is_file() for name in re.findall(r"HEADRACE_\w+", path.read_text())
    }
    assert named <= VARIABLES | PLAIN


def test_compose_waits_longer_than_the_drain() -> None:
    [compose] = documents(DEPLOY / "docker" / "compose.yaml")
    service = compose["services"]["shop"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 60
    assert (DEPLOY.parent / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize(("pod", "container"), containers(), ids=lambda value: str(value.get("name", "")))
def test_pods_run_commands_that_are_there_with_time_to_drain(pod: dict[str, Any], container: dict[str, Any]) -> None:
    program, command, *_ = container["args"]
    assert program == "headrace"
    parsed(container["args"][1:])
    drain_s = {setting.name: setting for setting in describe(kinds()[{"serve": "web"}.get(command, command)], "x")}[
        "drain"
    ]
    assert pod["terminationGracePeriodSeconds"] > float(drain_s.default.removesuffix("s"))
    assert (container.get("securityContext") or {})["readOnlyRootFilesystem"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if "httpGet" in container.get(probe, {}):
            ports = {port["name"] for port in container["ports"]}
            assert container[probe]["httpGet"]["port"] in ports
            assert container[probe]["httpGet"]["path"] in ("/health/live", "/health/ready")


def test_the_store_has_one_owner() -> None:
    [stateful] = [one for path in MANIFESTS for one in documents(path) if one["kind"] == "StatefulSet"]
    assert stateful["spec"]["replicas"] == 1
    [claim] = stateful["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
