from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.settings import SettingsError
from headrace.up.plan import Plan, Service, make_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text("# a pipeline")
    return tmp_path


def plan_of(folder: Path, settings: str, **environ: str) -> Plan:
    (folder / "headrace.toml").write_text(settings)
    return make_plan(environ=environ, folder=folder)


def service_of(folder: Path, settings: str, name: str, **environ: str) -> Service:
    return next(service for service in plan_of(folder, settings, **environ).services if service.name == name)


def test_parts_are_the_tables_that_are_there(folder: Path) -> None:
    settings = (
        "[console]\n[stream]\nthreads = 1\n[stream.b]\nfile='pipeline.py'\n[stream.a]\nfile='pipeline.py'\n[broker]\n"
    )
    assert [service.name for service in plan_of(folder, settings).services] == [
        "broker",
        "stream.b",
        "stream.a",
        "console",
    ]


def test_a_named_part_inherits_and_its_process_is_told_which_it_is(folder: Path) -> None:
    service = service_of(
        folder, "[web]\napp='a:b'\nport=1\n[web.shop]\nport=2\n", "web.shop", HEADRACE_SERVICE="web.other"
    )
    assert (service.settings.app, service.settings.port) == ("a:b", 2)
    assert service.environ["HEADRACE_SERVICE"] == "web.shop"
    assert service.environ["HEADRACE_CONFIG"] == str(folder / "headrace.toml")


@pytest.mark.parametrize("named", ["", "broker = 'data'\n"])
def test_a_part_that_names_no_broker_or_its_folder_gets_that_of_the_file(
    folder: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    service = service_of(folder, f"[broker]\ndata='data'\n[web]\napp='a:b'\n{named}", "web")
    target = f"unix://{folder}/data/headrace.sock"
    assert (service.settings.broker, service.environ["HEADRACE_BROKER"]) == (target, target)


def test_a_part_may_name_another_broker(folder: Path) -> None:
    service = service_of(folder, "[broker]\n[worker]\napp='a:b'\nbroker='http://there:1'\n", "worker")
    assert service.environ["HEADRACE_BROKER"] == service.environ["HEADRACE_WORKER__BROKER"] == "http://there:1"


def test_without_a_broker_in_the_file_nothing_is_said_about_one(folder: Path) -> None:
    assert "HEADRACE_BROKER" not in service_of(folder, "[web]\napp='a:b'\n", "web").environ


def test_the_environment_wins_over_the_file(folder: Path) -> None:
    assert service_of(folder, "[web]\napp='a:b'\nport=1\n", "web", HEADRACE_WEB__PORT="7").settings.port == 7


def test_a_data_folder_whose_socket_has_too_long_a_path_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="a Unix socket's path may have 100"):
        plan_of(folder, f"[broker]\ndata='{'x' * 100}'\n[web]\napp='a:b'\n")


@pytest.mark.parametrize(
    ("after", "changed", "restart"),
    [
        ("[web]\napp='a:b'\n[worker]\napp='a:b'\n", {}, set()),
        ("[web]\napp='a:b'\nthreads=3\n[worker]\napp='a:b'\nthreads=3\n", {"web": {"threads"}, "worker": {"threads"}}, set()),
        ("[web]\napp='a:b'\nport=1\n[worker]\napp='a:b'\nprocesses=2\n", {"web": {"port"}, "worker": {"processes"}}, {"web", "worker"}),
        ("[web]\napp='a:b'\nbroker='http://b:1'\n[worker]\napp='c:d'\n", {"web": {"broker", "environ"}, "worker": {"app"}}, {"web"}),
    ],
)  # fmt: skip
def test_two_plans_differ_by_the_settings_of_their_parts(
    folder: Path, after: str, changed: dict[str, Any], restart: set[str]
) -> None:
    before = plan_of(folder, "[web]\napp='a:b'\n[worker]\napp='a:b'\n").services
    pairs = [
        (one, other, one.changes(other)) for one, other in zip(before, plan_of(folder, after).services, strict=True)
    ]
    assert {one.name: changes for one, _, changes in pairs if changes} == changed
    assert {other.name for _, other, changes in pairs if other.rules.needs_restart(changes)} == restart


def test_another_content_of_a_pipelines_file_is_a_change(folder: Path) -> None:
    settings = "[stream.a]\nfile='pipeline.py:totals'\n"
    before = service_of(folder, settings, "stream.a")
    (folder / "pipeline.py").write_text("# another")
    after = service_of(folder, settings, "stream.a")
    assert before.changes(after) == {"content"}
    assert after.rules.needs_restart({"content"})
