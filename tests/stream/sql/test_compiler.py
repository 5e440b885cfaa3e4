"""Which operators a SELECT becomes."""

from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest

from headrace.stream import physical, plan
from headrace.stream.physical import Aggregation, Hop, Session, Tumble
from headrace.stream.sql import analyse, types
from headrace.stream.sql import compile as compile_plan
from tests.stream.sql.building import BID, PERSON, UNTIMED, analysed, compiled, kinds, only, step

TEN = 10_000_000


def test_a_star_over_a_source_needs_no_operator() -> None:
    assert kinds(compiled("SELECT * FROM bid")) == ["Read"]


def test_stateless_queries_become_one_projection() -> None:
    found = compiled(
        "WITH a AS (SELECT auction AS x, price FROM bid WHERE price > 1) SELECT x + 1 AS y FROM (SELECT * FROM a) WHERE x < 9"
    )
    assert kinds(found) == ["Read", "Project"]


def test_columns_that_are_only_chosen_are_chosen_once() -> None:
    found = compiled("SELECT price FROM (SELECT auction, price FROM (SELECT auction, price, ts FROM bid))")
    assert only(found, physical.Project).sql == 'SELECT "price"/*origin*/ FROM input'


def test_event_time_passes_under_another_name_and_is_lost_when_computed() -> None:
    assert analysed("SELECT ts AS t, price FROM bid").time == "t"
    assert analysed("SELECT ts + INTERVAL 1 HOUR AS ts FROM bid").time is None
    assert analysed("SELECT price FROM bid").time is None


def test_a_computed_column_of_an_untimed_stream_is_no_event_time() -> None:
    assert analysed("SELECT id + 1 AS number FROM untimed").time is None


def test_an_aggregate_over_plain_columns_reads_its_source_itself() -> None:
    found = compiled(
        "SELECT window_start, window_end, window_time, auction, count(*) AS n FROM bid GROUP BY tumble(ts, '10 s'), auction"
    )
    assert kinds(found) == ["Read", "Aggregate"]
    aggregate = only(found, physical.Aggregate)
    assert aggregate.window == Tumble(TEN)
    assert (aggregate.time, aggregate.keys, aggregate.mode) == ("ts", ("auction",), "append")
    assert aggregate.aggregations == (Aggregation("count_all", (), "n", pa.int64()),)
    assert found.output.time == "window_time" or found.output.schema.names[2] == "window_time"


def test_what_groups_need_is_computed_before_and_having_after() -> None:
    found = compiled(
        "SELECT window_start, upper(url) AS u, sum(price * 2) / count(*) AS m FROM bid WHERE auction > 0"
        " GROUP BY tumble(ts, '10 s'), upper(url) HAVING count(*) FILTER (WHERE price > 3) > 2"
    )
    assert kinds(found) == ["Read", "Project", "Aggregate", "Project"]
    aggregate = only(found, physical.Aggregate)
    assert aggregate.keys == ("u",)
    assert [item.function for item in aggregate.aggregations] == ["sum", "count_all", "count_all"]
    assert aggregate.aggregations[2].where == "counts"
    assert found.output.schema.names == ["window_start", "u", "m"]


def test_equal_aggregates_are_computed_once() -> None:
    found = compiled("SELECT count(*) AS a, count(*) + 1 AS b FROM bid GROUP BY tumble(ts, '10 s') HAVING count(*) > 1")
    assert len(only(found, physical.Aggregate).aggregations) == 1


def test_aggregates_have_sparks_types() -> None:
    found = analysed(
        "SELECT sum(category) AS s, sum(CAST(1 AS decimal(5,2))) AS sd, avg(id) AS a, avg(CAST(1 AS decimal(5,2))) AS ad, min(ts) AS m,"
        " count(DISTINCT id, seller) AS c, collect_list(id) AS l, approx_percentile(category, 0.5) AS p, stddev(id) AS d,"
        " max_by(id, ts) AS b, bool_and(id > 1) AS t FROM auction GROUP BY tumble(ts, '10 s')"
    )
    assert str(found.schema) == (
        "s bigint, sd decimal(15,2), a double, ad decimal(9,6), m timestamp, c bigint, l array<bigint>, p int, d double,"
        " b bigint, t boolean"
    )


def test_groups_may_be_named_by_place_or_alias() -> None:
    for key in ("2", "x", "auction % 10"):
        found = compiled(f"SELECT count(*) AS n, auction % 10 AS x FROM bid GROUP BY tumble(ts, '10 s'), {key}")
        assert only(found, physical.Aggregate).keys == ("x",)


def test_windows_of_all_kinds() -> None:
    def window(text: str) -> physical.Window | None:
        return only(compiled(f"SELECT count(*) AS n FROM bid GROUP BY {text}"), physical.Aggregate).window

    assert window("hop(ts, '10 seconds', INTERVAL 2 SECONDS)") == Hop(TEN, 2_000_000)
    assert window("hop(ts, '10 s', '10 s')") == Tumble(TEN)
    assert window("session_window(ts, '10 s')") == Session(TEN)


def test_a_window_over_windows_goes_by_window_time() -> None:
    inner = "SELECT window_start, window_end, window_time, count(*) AS n FROM bid GROUP BY tumble(ts, '10 s')"
    for column in ("window_time", "window_start"):
        found = compiled(f"SELECT sum(n) AS n FROM ({inner}) GROUP BY tumble({column}, '1 minute')")
        windows = [one.window for one in found.operators if isinstance(one, physical.Aggregate)]
        assert windows == [Tumble(TEN), Tumble(60_000_000)]


def test_the_windows_of_the_query_below_can_be_grouped_by() -> None:
    inner = "SELECT window_start, window_end, auction, count(*) AS n FROM bid GROUP BY hop(ts, '10 s', '2 s'), auction"
    found = compiled(f"SELECT window_start, window_end, max(n) AS m FROM ({inner}) GROUP BY window_start, window_end")
    outer = [one for one in found.operators if isinstance(one, physical.Aggregate)][1]
    assert outer.window == Tumble(1)
    assert len(outer.keys) == 2
    assert found.output.schema.names == ["window_start", "window_end", "m"]


def test_the_same_query_written_twice_is_done_once() -> None:
    inner = "SELECT window_start, window_end, auction, count(*) AS n FROM bid GROUP BY hop(ts, '10 s', '2 s'), auction"
    found = compiled(
        f"SELECT a.auction FROM ({inner}) a JOIN (SELECT max(n) AS m, window_start, window_end FROM ({inner})"
        " GROUP BY window_start, window_end) b ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.n >= b.m"
    )
    assert kinds(found).count("Aggregate") == 2


def test_the_first_of_each_window_is_final() -> None:
    inner = "SELECT window_end, auction, count(*) AS n FROM bid GROUP BY tumble(ts, '10 s'), auction"
    ranked = f"SELECT *, row_number() OVER (PARTITION BY window_end ORDER BY n DESC, auction) AS rn FROM ({inner})"
    top = only(compiled(f"SELECT auction, rn FROM ({ranked}) WHERE rn <= 3"), physical.Top)
    assert (top.partition, top.limit, top.rank, top.per_window) == (("window_end",), 3, "rn", True)
    assert top.order == (("n", True, False), ("auction", False, True))


def test_qualify_ranks_groups_and_shows_only_what_was_selected() -> None:
    found = compiled(
        "SELECT auction, count(*) AS n FROM bid GROUP BY tumble(ts, '10 s'), auction"
        " QUALIFY row_number() OVER (PARTITION BY window_end ORDER BY count(*) DESC) < 3"
    )
    top = only(found, physical.Top)
    assert (top.limit, top.rank, top.per_window) == (2, None, True)
    assert found.output.schema.names == ["auction", "n"]


def test_keep_last_is_a_result_that_changes() -> None:
    found = compiled("SELECT * FROM bid QUALIFY row_number() OVER (PARTITION BY bidder ORDER BY ts DESC) = 1", "update")
    assert not only(found, physical.Top).per_window
    assert any("for ever" in warning for warning in found.warnings)


def test_a_top_keeps_only_the_columns_that_are_used_around_it() -> None:
    found = compiled(
        "SELECT auction FROM (SELECT *, row_number() OVER (PARTITION BY bidder ORDER BY price) AS rn FROM bid) WHERE rn = 1",
        "update",
    )
    assert only(found, physical.Top).schema.names == ["auction", "bidder", "price", "ts", "rn"]


def test_in_update_mode_windows_below_something_with_state_still_close() -> None:
    inner = "SELECT window_time, auction, count(*) AS n FROM bid GROUP BY tumble(ts, '10 s'), auction"
    found = compiled(f"SELECT sum(n) AS n FROM ({inner}) GROUP BY tumble(window_time, '1 minute')", "update")
    assert [one.mode for one in found.operators if isinstance(one, physical.Aggregate)] == ["append", "update"]


def test_union_all_gives_the_common_types_and_the_first_names() -> None:
    found = compiled("SELECT auction AS a, ts FROM bid UNION ALL SELECT category, ts FROM auction")
    assert kinds(found)[-1] == "Union"
    assert str(found.output.schema) == "a bigint, ts timestamp"
    assert found.output.time == "ts"


def test_steps_of_other_kinds_keep_what_they_can_of_the_event_time() -> None:
    keeps = plan.PythonStep("keeps", "map", dict, PERSON.schema, PERSON)
    loses = plan.PythonStep("loses", "map", dict, UNTIMED.schema, UNTIMED)
    assert compiled("SELECT * FROM k", "append", ("k", keeps)).output.time == "ts"
    assert compiled("SELECT * FROM k", "append", ("k", loses)).output.time is None
    dedup = plan.DedupStep("dedup", ("AUCTION",), TEN, BID)
    assert only(compiled("SELECT * FROM k", "append", ("k", dedup)), physical.Dedup).keys == ("auction",)


@pytest.mark.parametrize("kind", ["filter", "dedup"])
def test_a_step_over_renamed_columns_gives_them_under_their_new_names(kind: str) -> None:
    swapped = step("SELECT auction AS bidder, bidder AS auction, ts FROM bid")
    schema = analyse(swapped).schema
    over: plan.Node = plan.PythonStep("f", "filter", bool, schema, swapped)
    if kind == "dedup":
        over = plan.DedupStep("d", ("auction",), TEN, swapped)
    assert compiled("SELECT * FROM k", "append", ("k", over)).output.schema == schema
    project = compiled("SELECT bidder FROM k", "append", ("k", over)).output
    assert isinstance(project, physical.Project)
    assert project.sql == 'SELECT "bidder"/*origin*/ FROM input'


def test_python_functions_are_called_with_their_types() -> None:
    twice = plan.Function("twice", lambda x: 2 * x, (pa.int64(),), pa.int64())
    query = plan.SqlStep("q", "SELECT twice(3) AS x FROM bid", (("bid", BID),), (twice,))
    project = only(compile_plan(plan.Pipeline("p", query, ())), physical.Project)
    assert project.functions == (twice,)
    assert '"twice"(CAST(3 AS BIGINT))' in project.sql


def test_functions_of_one_name_are_known_by_what_each_returns() -> None:
    def priced(returns: pa.DataType) -> pa.DataType:
        function = plan.Function("priced", str, (pa.int64(),), returns)
        found = analyse(replace(step("SELECT priced(price) AS x FROM bid"), functions=(function,)))
        return found.schema.fields[0].type

    assert [priced(kind) for kind in (pa.string(), pa.float64(), pa.string())] == [
        pa.string(),
        pa.float64(),
        pa.string(),
    ]


def test_a_query_that_was_compiled_is_known_and_duckdb_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_known", {})  # what other tests have asked must not fill it up in between
    text = "SELECT auction * 31 AS x FROM bid WHERE price > 31"
    first = compiled(text)

    def refuse(**_: object) -> duckdb.DuckDBPyConnection:
        raise AssertionError("DuckDB was asked")

    monkeypatch.setattr(duckdb, "connect", refuse)
    assert compiled(text) == first
