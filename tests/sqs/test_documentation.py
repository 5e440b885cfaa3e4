"""docs/sqs.md names everything that the API has."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.sqs import attribute_names, errors
from headrace.sqs.api import ACTIONS
from headrace.sqs.errors import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "sqs.md").read_text()
KINDS = [value for value in vars(errors).values() if isinstance(value, Kind)]


@pytest.mark.parametrize("name", ACTIONS)
def test_operation_has_its_row(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted((attribute_names.KNOWN | attribute_names.SYSTEM) - {"All"}))
def test_attribute_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("shape", sorted({kind.shape for kind in [*KINDS, *errors.KMS]}))
def test_error_is_named(shape: str) -> None:
    assert f"`{shape}`" in PAGE
