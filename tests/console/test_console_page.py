"""docs/console.md has every setting and every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.console.pages import SECTIONS
from headrace.console_settings import ConsoleSettings
from headrace.settings import Setting, describe

PAGE = (Path(__file__).parents[2] / "docs" / "console.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("setting", describe(ConsoleSettings, "console"), ids=lambda setting: setting.name)
def test_each_setting_is_documented_with_its_flag_and_default(setting: Setting) -> None:
    [row] = [row for row in ROWS if row[1] == f"`{setting.variable}`"]
    assert row[0].startswith(f"`{setting.flag}")
    assert row[2].strip("`") == ("off" if setting.switch else setting.default)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_entry_of_the_navigation_is_documented(section: object) -> None:
    assert f"`{section.path}`" in PAGE  # type: ignore[attr-defined]  # a Section; pytest's ids want an object
