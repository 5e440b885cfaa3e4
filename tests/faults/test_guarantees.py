"""The page of guarantees names tests that exist, and every setting it names is read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
REFERENCE = re.compile(r"`((?:tests|src)/[\w/]+\.py)((?:::\w+)+)`")


def names_in(module: Path) -> set[str]:
    """Functions, classes (assigned ones, too: a stateful machine's TestCase), and methods as Class::method."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            functions = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{part.name}" for part in functions}
    return found


@pytest.mark.parametrize(("path", "name"), sorted(set(REFERENCE.findall(PAGE))))
def test_each_guarantee_names_a_test_that_exists(path: str, name: str) -> None:
    assert name.removeprefix("::") in names_in(ROOT / path)


def test_each_row_names_a_test() -> None:
    promises = PAGE.partition("## How to look harder")[0]
    rows = [
        line for line in promises.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| p", "| w"))
    ]
    assert len(rows) > 35
    assert [row for row in rows if not REFERENCE.search(row)] == []


def test_each_setting_is_read_by_a_test() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in set(re.findall(r"HEADRACE_[A-Z_]+", PAGE)) if name not in sources] == []
