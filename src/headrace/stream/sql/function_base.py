"""What a scalar function's entry is: how many arguments, and how it is written for DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql.dialect import unsupported, written
from headrace.stream.sql.types import Typed


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call as it is being written."""

    node: exp.Anonymous
    arguments: list[Typed]

    def sql(self, place: int, default: str = "") -> str:
        return self.arguments[place][0] if place < len(self.arguments) else default

    def type(self, place: int) -> pa.DataType:
        return self.arguments[place][1]

    def text(self, place: int, what: str, default: str | None = None) -> str:
        """An argument that must be a text written out. Raises UnsupportedQuery."""
        if place >= len(self.arguments) and default is not None:
            return default
        node = self.node.expressions[place]
        if not (isinstance(node, exp.Literal) and node.is_string):
            raise self.unsupported(
                f"{what} must be written out, since it is translated when the pipeline is built", "'…'"
            )
        return str(node.name)

    def unsupported(self, reason: str, instead: str = "") -> UnsupportedQuery:
        return unsupported(self.node, written(self.node), reason, instead)


@dataclass(frozen=True, slots=True)
class ScalarFunction:
    """A scalar function. `most` None: any number of arguments."""

    least: int
    most: int | None
    write: Callable[[FunctionCall], str]


def template(pattern: str, least: int = 1, most: int | None = -1, *defaults: str) -> ScalarFunction:
    """A function that is a pattern of its arguments: `{0}`; `defaults` for those that may be left out."""
    most = least + len(defaults) if most == -1 else most

    def write(call: FunctionCall) -> str:
        given = [sql for sql, _ in call.arguments]
        return pattern.format(*given, *defaults[len(given) - least :], all=", ".join(given))

    return ScalarFunction(least, most, write)
