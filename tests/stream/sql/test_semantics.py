"""Each expression of `semantics.txt` gives on the embedded engine the type and the value that Spark gave."""

import pytest

from headrace.stream.sql.functions import TABLE
from tests.stream.sql.semantics import ERROR, cases, ours

CASES = cases()
GROUPS = list(dict.fromkeys(group for group, _, _ in CASES))


@pytest.mark.parametrize("group", GROUPS)
def test_expressions_mean_what_they_mean_in_spark(group: str) -> None:
    expected = {expression: answer for name, expression, answer in CASES if name == group and answer != ERROR}
    assert expected
    assert ours(list(expected)) == expected


@pytest.mark.parametrize("expression", [expression for _, expression, answer in CASES if answer == ERROR])
def test_what_raises_in_spark_raises_here_or_is_refused(expression: str) -> None:
    assert ours([expression]) == {expression: ERROR}


def test_every_function_has_an_example() -> None:
    text = " ".join(expression.lower() for _, expression, _ in CASES)
    same = {
        "ucase",
        "lcase",
        "len",
        "character_length",
        "char",
        "regexp",
        "day",
        "dayofmonth",
        "date",
        "timestamp",
    }
    untested = [name for name in TABLE if f"{name}(" not in text and f" {name} " not in text and name not in same]
    assert untested == []
