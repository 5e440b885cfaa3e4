"""docs/up.md has every setting, as the code has it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from headrace.settings_file import SECTIONS
from headrace.up import child, supervisor
from headrace.up.plan import make_plan
from headrace.up.reference import kinds, reference
from headrace.up.sections import SECTIONS as PARTS

PAGE = (Path(__file__).parents[2] / "docs" / "up.md").read_text()


def test_reference_is_what_the_command_prints() -> None:
    assert PAGE.endswith(reference().rstrip() + "\n"), "run: headrace config reference"


def test_every_section_of_the_file_is_known_to_up() -> None:
    assert set(SECTIONS) == {*PARTS, "up"} == set(kinds())


def test_the_example_is_a_plan(tmp_path: Path) -> None:
    example = PAGE.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "headrace.toml").write_text(example)
    (tmp_path / "pipeline.py").touch()
    plan = make_plan(environ={}, folder=tmp_path)
    assert [service.name for service in plan.services] == ["broker", "web", "worker", "stream.totals", "console"]
    assert set(tomllib.loads(example)) == set(PARTS)


@pytest.mark.parametrize(
    "bound", [f"{supervisor.READY_WITHIN_S:g} s", f"After {['', '', '', 'three'][child.FAILING_AFTER]}"]
)
def test_bounds_on_the_page_are_those_of_the_code(bound: str) -> None:
    assert bound in PAGE
