"""Between Spark's Arrow and ours: Spark's timestamps are instants (zone UTC in Arrow), ours are UTC without zone."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from headrace.stream.schema import Field, Schema, normal, quoted
from headrace.stream.spark import limits


def schema_of(struct: StructType) -> Schema:
    """The columns of a DataFrame. Raises SchemaInvalid for types that streams do not have."""
    columns = Schema.of(", ".join(f"{quoted(field.name)} {field.dataType.simpleString()}" for field in struct.fields))
    pairs = zip(columns.fields, struct.fields, strict=True)
    return Schema(tuple(Field(ours.name, ours.type, theirs.nullable) for ours, theirs in pairs))


def struct_of(schema: Schema) -> StructType:
    """The same columns, as Spark has them."""
    struct = StructType.fromDDL(schema.ddl())
    assert isinstance(struct, StructType)
    return struct


def to_spark(rows: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as Spark takes them; `schema` is `arrow_of` their DataFrame, and says which columns."""
    for batch in rows.select(schema.names).cast(schema).to_batches(limits.ROWS_AT_ONCE):
        if batch.num_rows:
            yield batch


def from_spark(batch: pa.RecordBatch) -> pa.Table:
    """Rows as pipelines have them."""
    return plain(pa.Table.from_batches([batch]))


def plain(table: pa.Table) -> pa.Table:
    """The same for a whole table."""
    return table.cast(pa.schema([pa.field(field.name, normal(field.type)) for field in table.schema]))


def arrow_of(struct: StructType) -> pa.Schema:
    """The Arrow schema that Spark expects of rows of this schema, nullability and names of list items included."""
    schema: pa.Schema = to_arrow_schema(struct, timezone="UTC")
    return schema


def zoned(rows: pa.Table) -> pa.Table:
    """Rows whose timestamps say that they are UTC, for Spark to read as instants."""
    return rows.cast(pa.schema([pa.field(field.name, _zoned(field.type), field.nullable) for field in rows.schema]))


def _zoned(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_list(kind):
        return pa.list_(_zoned(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_zoned(kind.key_type), _zoned(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _zoned(field.type), field.nullable) for field in kind])
    return kind
