"""Schemas: the columns of a stream, as Spark's DDL strings, Python types, or Arrow schemas.

Inside a pipeline a timestamp is UTC and has no zone (`timestamp[us]`); zones are converted at the edges. Types are
named as Spark names them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.dialects.spark import Spark
from sqlglot.errors import SqlglotError

from headrace.stream.errors import SchemaInvalid

ORIGIN: Final = "_origin"
"""The hidden column of rows that stem from one message or file row each: its index among the batch's origins (int32).
Stateless steps keep it, so that a row that fails in a step is sent to the dead letters as the message that it was."""

_SIMPLE: Final[dict[str, pa.DataType]] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "TEXT": pa.string(),
    "VARCHAR": pa.string(),
    "CHAR": pa.string(),
    "BINARY": pa.binary(),
    "VARBINARY": pa.binary(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMPTZ": pa.timestamp("us"),
    "TIMESTAMPLTZ": pa.timestamp("us"),
    "TIMESTAMPNTZ": pa.timestamp("us"),
}

_WORDS: Final = frozenset(Spark.tokenizer_class.KEYWORDS) | {"TRUE", "FALSE", "NULL"}

_PYTHON: Final[dict[Any, pa.DataType]] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    dt.datetime: pa.timestamp("us"),
    dt.date: pa.date32(),
    decimal.Decimal: pa.decimal128(38, 18),
}

SchemaLike: TypeAlias = "str | Mapping[str, Any] | type | pa.Schema | Schema"
"""`"origin string, ts timestamp"`, `{"origin": str}`, a dataclass, TypedDict or msgspec.Struct, an Arrow schema."""


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A column. `type` is one of the types of this module; with `nullable` False a row without a value is dead."""

    name: str
    type: pa.DataType
    nullable: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a stream, in order. Names are unique, without regard to case."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for field in self.fields:
            if not field.name or field.name.lower() == ORIGIN or "\0" in field.name:
                raise SchemaInvalid(str(self), f"{field.name!r} cannot be a column's name")
            if field.name.lower() in seen:
                raise SchemaInvalid(
                    str(self), f"column {field.name!r} stands twice (names do not differ by case alone)"
                )
            seen.add(field.name.lower())

    @classmethod
    def of(cls, schema: SchemaLike) -> Schema:
        """The schema that `schema` says. Raises SchemaInvalid."""
        if isinstance(schema, Schema):
            return schema
        if isinstance(schema, str):
            return _from_ddl(schema)
        if isinstance(schema, pa.Schema):
            return cls(tuple(Field(field.name, normal(field.type), field.nullable) for field in schema))
        hints = dict(schema) if isinstance(schema, Mapping) else typing.get_type_hints(schema)
        return cls(tuple(_from_python(name, hint) for name, hint in hints.items()))

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def find(self, name: str) -> Field | None:
        """The column of that name, without regard to case."""
        return next((field for field in self.fields if field.name.lower() == name.lower()), None)

    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(field.name, field.type, field.nullable) for field in self.fields])

    def ddl(self) -> str:
        """As Spark reads it. `Schema.of(schema.ddl())` is the same schema."""
        return ", ".join(
            f"{quoted(field.name)} {type_name(field.type)}{'' if field.nullable else ' NOT NULL'}"
            for field in self.fields
        )

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {type_name(field.type)}" for field in self.fields)


def quoted(name: str) -> str:
    """A column's name in Spark's SQL: as it is, or in backticks; so if it could be a word of SQL."""
    plain = name.isidentifier() and name.isascii() and name.upper() not in _WORDS
    return name if plain else "`" + name.replace("`", "``") + "`"


def type_name(kind: pa.DataType) -> str:
    """The Spark name of a type: `bigint`, `array<string>`, `struct<a:int>`."""
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{type_name(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)},{type_name(kind.item_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{quoted(field.name)}:{type_name(field.type)}' for field in kind)}>"
    name = _NAMES.get(kind)
    if name is None:
        raise SchemaInvalid(str(kind), "streams have no such type")
    return name


_NAMES: Final[dict[pa.DataType, str]] = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp",
}


def normal(kind: pa.DataType) -> pa.DataType:
    """The type that a pipeline uses inside for an Arrow type: wide and zoned types become plain ones."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return normal(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(normal(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(normal(kind.key_type), normal(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, normal(field.type), field.nullable) for field in kind])
    if pa.types.is_uint8(kind):
        return pa.int16()
    if pa.types.is_uint16(kind):
        return pa.int32()
    if pa.types.is_unsigned_integer(kind):
        return pa.int64()
    if pa.types.is_date64(kind):
        return pa.date32()
    type_name(kind)  # raises for types without a name
    return kind


def _from_ddl(text: str) -> Schema:
    try:
        table = sqlglot.parse_one(f"CREATE TABLE t ({text})", read="spark")
    except SqlglotError as error:
        raise SchemaInvalid(text, _place(error)) from None
    columns = [node for node in table.find_all(exp.ColumnDef) if isinstance(node.parent, exp.Schema)]
    schema = table.find(exp.Schema)
    if schema is None or len(columns) != len(schema.expressions) or not columns:
        raise SchemaInvalid(text, "it is not a list of `name type`")
    return Schema(tuple(_from_column(text, column) for column in columns))


def _place(error: SqlglotError) -> str:
    """Where a list of columns is none. An unknown type is only what was not expected there, to the parser."""
    found = getattr(error, "errors", None) or [{}]
    word = str(found[0].get("highlight") or "").strip()
    what = f"{word!r} is not expected there" if word else "it is not a list of columns"
    return (
        f"{what}; a column is a name and a type, such as string, bigint, double, decimal(10,2), timestamp, array<int>"
    )


def _from_column(text: str, column: exp.ColumnDef) -> Field:
    kind = column.args.get("kind")
    if kind is None:
        raise SchemaInvalid(text, f"column {column.name!r} has no type")
    required = any(isinstance(item.kind, exp.NotNullColumnConstraint) for item in column.args.get("constraints") or [])
    return Field(column.name, from_sql_type(kind, text), not required)


def from_sql_type(kind: exp.DataType, text: str = "") -> pa.DataType:
    """The Arrow type of a parsed SQL type. Raises SchemaInvalid."""
    name = kind.this.name if isinstance(kind.this, exp.DataType.Type) else str(kind.this)
    inner = kind.expressions
    if name in {"ARRAY", "LIST"}:
        return pa.list_(from_sql_type(inner[0], text))
    if name == "MAP":
        return pa.map_(from_sql_type(inner[0], text), from_sql_type(inner[1], text))
    if name == "STRUCT":
        return pa.struct([pa.field(item.name, from_sql_type(item.args["kind"], text)) for item in inner])
    if name == "DECIMAL":
        numbers = [int(item.name) for item in inner]
        precision, scale = [*numbers, 0, 0][:2] if numbers else (10, 0)
        return pa.decimal128(precision, scale)
    found = _SIMPLE.get(name)
    if found is None:
        raise SchemaInvalid(text or kind.sql("spark"), f"streams have no type {kind.sql('spark').lower()!r}")
    return found


def _from_python(name: str, hint: Any) -> Field:
    if isinstance(hint, str):
        return dataclasses.replace(_from_ddl(f"{quoted(name)} {hint}").fields[0], name=name)
    if isinstance(hint, pa.DataType):
        return Field(name, normal(hint))
    kind, nullable = _python_type(hint)
    return Field(name, kind, nullable)


def _python_type(hint: Any) -> tuple[pa.DataType, bool]:
    """(type, nullable) of a Python annotation. Only annotations with `| None` are nullable."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        if len(rest) == 1:
            return _python_type(rest[0])[0], len(rest) < len(arguments)
    elif origin is list:
        return pa.list_(_python_type(arguments[0])[0]), False
    elif origin is dict:
        return pa.map_(_python_type(arguments[0])[0], _python_type(arguments[1])[0]), False
    elif hint in _PYTHON:
        return _PYTHON[hint], False
    elif isinstance(hint, type) and typing.get_type_hints(hint):
        inner = Schema.of(hint)
        return pa.struct([pa.field(field.name, field.type, field.nullable) for field in inner.fields]), False
    raise SchemaInvalid(repr(hint), "streams have no such type")
