"""The reference's examples are pipelines, and it names every function."""

import re
from pathlib import Path

import headrace.stream as hs
from headrace.stream.sql.aggregate_functions import KINDS
from headrace.stream.sql.functions import TABLE

PAGE = (Path(__file__).parents[3] / "docs" / "stream-sql.md").read_text()


def test_the_examples_of_the_reference_are_pipelines() -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "stream-sql.md", "exec"), names)  # what a reader would type
    streams = [value for value in names.values() if isinstance(value, hs.Stream)]
    assert len(streams) == 8
    assert all(hs.pipeline("p", stream).physical.operators for stream in streams)


def test_the_reference_names_every_function() -> None:
    missing = [name for name in [*TABLE, *KINDS] if f"`{name}`" not in PAGE]
    assert missing == []
