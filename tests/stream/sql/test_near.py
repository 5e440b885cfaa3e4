from headrace.stream.sql.near import near


def test_a_slip_is_found_and_a_stranger_is_not() -> None:
    names = ["locate", "concat", "from_unixtime", "count", "origin"]
    assert near("cuont", names).startswith("count")
    assert near("ORGIN", names) == "origin"
    assert near("frobnicate", names) == ""
