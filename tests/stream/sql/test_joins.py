"""What the conditions of a join become: filters, keys, bounds on time, the rest."""

import pytest

from headrace.stream import physical
from headrace.stream.physical import Join
from tests.stream.sql.building import compiled, kinds, only

MINUTE = 60_000_000


def joined(condition: str, kind: str = "JOIN") -> Join:
    return only(compiled(f"SELECT a.id, b.price FROM auction a {kind} bid b ON a.id = b.auction AND {condition}"), Join)


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        ("b.ts BETWEEN a.ts AND a.ts + INTERVAL 10 MINUTES", (0, 10 * MINUTE)),
        ("b.ts >= a.ts AND b.ts < a.ts + INTERVAL '1' MINUTE", (0, MINUTE - 1)),
        ("a.ts < b.ts AND a.ts + INTERVAL 1 MINUTE >= b.ts", (1, MINUTE)),
        ("b.ts - INTERVAL 1 MINUTE <= a.ts AND b.ts + INTERVAL 1 MINUTE >= a.ts", (-MINUTE, MINUTE)),
        ("b.ts = a.ts", (0, 0)),
        ("b.ts > a.ts", (1, None)),
        ("b.ts BETWEEN a.ts AND a.expires", (0, None)),
        ("b.price > 3", (None, None)),
    ],
)
def test_bounds_on_time_are_found(condition: str, bounds: tuple[int | None, int | None]) -> None:
    join = joined(condition)
    assert (join.lower_us, join.upper_us) == bounds
    assert (join.left_keys, join.right_keys) == (("id",), ("auction",))


def test_what_is_no_bound_stays_a_condition() -> None:
    assert joined("b.ts BETWEEN a.ts AND a.expires").condition == '("b_ts" <= "expires")'
    assert joined("b.ts >= a.ts AND b.price > a.category").condition == '("price" > "category")'


def test_filters_of_one_side_are_done_before_an_inner_join() -> None:
    found = compiled(
        "SELECT a.id, b.price FROM auction a, bid b WHERE a.id = b.auction AND a.category = 10 AND b.price > 3"
    )
    projects = [one.sql for one in found.operators if isinstance(one, physical.Project)]
    assert "category" in projects[0] and "WHERE" in projects[0]
    assert '("price" > 3)' in projects[1]
    assert only(found, Join).schema.names == ["id", "ts", "auction", "price", "b_ts"]


def test_an_outer_join_keeps_the_rows_of_its_side() -> None:
    text = "SELECT a.id, b.price FROM auction a LEFT JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE"
    found = compiled(f"{text} AND a.category = 10 AND b.price > 3")
    join = only(found, Join)
    assert join.kind == "left"
    assert join.condition == '("category" = 10)'
    after = compiled(f"{text} WHERE b.price IS NULL")
    assert 'WHERE ("price" IS NULL)' in after.operators[-1].sql  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "time"), [("LEFT JOIN", "ts"), ("RIGHT JOIN", "b_ts"), ("FULL JOIN", None)])
def test_the_event_time_of_an_outer_join_is_never_null(kind: str, time: str | None) -> None:
    assert joined("b.ts BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE", kind).time == time


def test_an_inner_joins_event_time_is_the_one_that_is_used() -> None:
    text = "FROM auction a JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE"
    assert only(compiled(f"SELECT b.ts, a.id {text}"), Join).time == "b_ts"
    assert only(compiled(f"SELECT a.ts, a.id {text}"), Join).time == "ts"
    assert only(compiled(f"SELECT count(*) AS n {text} GROUP BY tumble(b.ts, '10 s')"), Join).time == "b_ts"


def test_windows_join_at_the_same_time() -> None:
    found = compiled(
        "SELECT p.id FROM (SELECT id, window_start, window_end FROM person GROUP BY tumble(ts, '10 s'), id) p"
        " JOIN (SELECT seller, window_start, window_end FROM auction GROUP BY tumble(ts, '10 s'), seller) a"
        " ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end"
    )
    join = only(found, Join)
    assert (join.lower_us, join.upper_us, join.left_keys) == (0, 0, ("id",))
    assert found.warnings == ()


def test_a_row_joins_the_window_that_it_is_in() -> None:
    found = compiled(
        "SELECT b.price FROM bid b JOIN (SELECT max(price) AS m, window_start, window_end FROM bid GROUP BY tumble(ts, '10 s')) w"
        " ON b.price = w.m AND b.ts >= w.window_start AND b.ts < w.window_end"
    )
    join = only(found, Join)
    assert (join.lower_us, join.upper_us) == (0, 9_999_999)


def test_windows_of_sessions_join_by_their_start_as_a_key() -> None:
    inner = "SELECT {0} AS k, window_start, window_end FROM {1} GROUP BY session_window(ts, '10 s'), {0}"
    found = compiled(
        f"SELECT x.k FROM ({inner.format('id', 'person')}) x JOIN ({inner.format('seller', 'auction')}) y"
        " ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end"
    )
    join = only(found, Join)
    assert (join.lower_us, join.upper_us, len(join.left_keys)) == (0, 0, 2)


def test_without_bounds_a_join_warns() -> None:
    found = compiled("SELECT a.id FROM auction a JOIN bid b ON a.id = b.auction")
    assert "rows are kept for ever" in found.warnings[0]


def test_a_table_is_joined_by_a_projection() -> None:
    found = compiled(
        "SELECT b.price * r.rate AS x, b.ts FROM bid b LEFT JOIN rates r ON b.auction = r.id AND r.rate > 0"
    )
    assert kinds(found) == ["Read", "Project"]
    project = only(found, physical.Project)
    assert [table.name for table in project.tables] == ["rates"]
    assert 'LEFT JOIN (SELECT "id" AS "id", "rate" AS "rate" FROM "rates")' in project.sql
    assert project.time == "ts"


@pytest.mark.parametrize("key", ["auction", "other"])
def test_a_join_with_a_table_stays_where_the_query_below_only_chooses_columns(key: str) -> None:
    found = compiled(f"SELECT x.{key} FROM (SELECT auction AS {key} FROM bid) x JOIN rates r ON x.{key} = r.id")
    assert f'JOIN (SELECT "id" AS "id" FROM "rates") ON ("{key}" = "id")' in only(found, physical.Project).sql


def test_keys_of_different_types_meet_in_the_wider() -> None:
    found = compiled("SELECT a.id FROM auction a JOIN bid b ON a.category = b.auction AND a.ts = b.ts")
    join = only(found, Join)
    kinds_ = {found.operators[join.left].schema.find(join.left_keys[0]).type}  # type: ignore[union-attr]
    assert kinds_ == {found.operators[join.right].schema.find(join.right_keys[0]).type}  # type: ignore[union-attr]


def test_using_names_the_column_of_both() -> None:
    found = compiled("SELECT p.name FROM auction a JOIN person p USING (id)")
    join = only(found, Join)
    assert (join.left_keys, join.right_keys) == (("id",), ("p_id",))
