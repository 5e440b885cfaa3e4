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


def to_spark(rows: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as Spark takes them; `schema` is `arrow_of` their DataFrame, and says which columns."""
    for batch in rows.select(schema.names).cast(schema).to_batches(limits.ROWS_AT_ONCE):
        if batch.num_rows:
            yield batch


def from_spark(batch: pa.RecordBatch) -> pa.Table:
    """Rows as pipelines have them."""
    table = pa.Table.from_batches([batch])
    return table.cast(pa.schema([pa.field(field.name, normal(field.type)) for field in table.schema]))


def arrow_of(struct: StructType) -> pa.Schema:
    """The Arrow schema that Spark expects of rows of this schema, nullability and names of list items included."""
    schema: pa.Schema = to_arrow_schema(struct, timezone="UTC")
    return schema
