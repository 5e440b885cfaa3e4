"""docs/cli.md documents every setting of the web server."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from headrace.settings import Setting, describe, resolve
from headrace.web.settings import DurableSettings, LimitSettings, RouteSettings, WebSettings

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## headrace serve\n")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in SECTION.splitlines()
    if line.startswith("|")
]
SETTINGS = describe(WebSettings, "web")


def flag_cell(setting: Setting) -> str:
    if setting.tables:
        return f"`[[web.{setting.name}]]`"
    if setting.name == "app":
        return "`APP`"
    kind = "" if setting.switch else f" {setting.kind if '|' in setting.kind else setting.kind.upper()}"
    return f"`{setting.flag}{kind}`"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_documented_with_its_flag_variable_and_default(setting: Setting) -> None:
    (row,) = [row for row in ROWS if row[1] == f"`{setting.variable}`"]
    assert row[0].replace("\\", "") == flag_cell(setting)
    assert row[2].strip("`") == ("off" if setting.switch else setting.default)


def test_no_other_setting_is_documented() -> None:
    documented = {row[1].strip("`") for row in ROWS if row[1].startswith("`HEADRACE_")}
    assert documented == {setting.variable for setting in SETTINGS}


@pytest.mark.parametrize("table", [RouteSettings, DurableSettings, LimitSettings])
def test_each_key_of_the_tables_is_documented(table: type[msgspec.Struct]) -> None:
    named = {name for row in ROWS for name in re.findall(r"`([a-z_]+)`", row[0])}
    assert {field.name for field in msgspec.structs.fields(table)} <= named


def test_the_example_file_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    assert tomllib.loads(example)
    (tmp_path / "headrace.toml").write_text(example)
    found = resolve(WebSettings, "web", flags={}, environ={}, folder=tmp_path).settings
    assert found.app == "shop.main:app"
    assert (len(found.routes), len(found.durable), len(found.limits)) == (2, 1, 1)
    assert found.routes[0].static == str(tmp_path / "public")
