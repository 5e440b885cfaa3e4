"""Column names that are words of SQL, or no names at all."""

import pytest

from headrace.stream.errors import SchemaInvalid
from headrace.stream.schema import Schema

NAMES = ["select", "TRUE", "null", "group", "date", "a b", "x`y", "ünï", "0", "a.b", "it's", "plain"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_survives_its_ddl(name: str) -> None:
    schema = Schema.of({name: "bigint", "struct": f"struct<`{name.replace('`', '``')}`:int>"})
    assert schema.names == [name, "struct"]
    assert Schema.of(schema.ddl()) == schema


@pytest.mark.parametrize("name", ["", "_origin", "_ORIGIN", "a\0b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(SchemaInvalid, match="cannot be a column's name"):
        Schema.of({name: int})
