"""Which names a SQL text uses, and what they may mean to the program around it."""

from __future__ import annotations

import sys
from pathlib import Path

from sqlglot import exp

from headrace.stream.sql.dialect import parse


def table_names(text: str, step: str) -> tuple[list[str], list[str]]:
    """(tables, functions) that a text names, each once, in order; what WITH names is not among them."""
    tree = parse(text, step)
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    tables = [node.name for node in tree.find_all(exp.Table) if node.name and node.name.lower() not in own]
    calls = [str(node.this) for node in tree.find_all(exp.Anonymous)]
    return list(dict.fromkeys(tables)), list(dict.fromkeys(calls))


def caller_variables(package: Path) -> dict[str, object]:
    """The variables of whoever called into `package`: globals, and over them locals."""
    frame = sys._getframe(1)  # noqa: SLF001 # inspect.stack() reads every file of the stack
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(package):
        frame = frame.f_back
    return {**frame.f_globals, **frame.f_locals}
