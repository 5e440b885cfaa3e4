from headrace.stream.sql.dialect import close_matches


def test_a_slip_is_found_and_a_stranger_is_not() -> None:
    names = ["locate", "concat", "from_unixtime", "count", "origin"]
    assert close_matches("cuont", names).startswith("count")
    assert close_matches("ORGIN", names) == "origin"
    assert close_matches("frobnicate", names) == ""
