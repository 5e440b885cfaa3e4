"""The text of a step for Spark, and what Spark cannot run. That the text means the same is tested in tests/stream/spark."""

import pytest

from headrace.stream import plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql import WINDOW_TIME, spark_restrictions, to_spark
from tests.stream.sql.building import AUCTION, BID, step


def text(sql: str) -> str:
    return " ".join(to_spark(step(sql)).text.split())


def test_a_step_without_windows_stays_as_it_is() -> None:
    query = to_spark(step("SELECT auction, price * 2 AS twice, ts FROM bid WHERE price > 1"))
    assert " ".join(query.text.split()) == "SELECT auction, price * 2 AS twice, ts FROM bid WHERE price > 1"
    assert (query.columns, query.time, query.windowed) == (("auction", "twice", "ts"), "ts", False)


def test_windows_become_sparks_and_keep_their_time_in_a_hidden_column() -> None:
    query = to_spark(
        step("SELECT window_start, auction, count(*) AS n FROM bid GROUP BY hop(ts, '10 s', '2 s'), auction")
    )
    assert "WINDOW(ts, '10 seconds', '2 seconds')" in query.text
    assert WINDOW_TIME in query.text
    assert query.windowed
    assert query.columns == ("window_start", "auction", "n")


def test_distinct_counts_become_sets_and_the_first_is_by_time() -> None:
    found = text(
        "SELECT count(DISTINCT bidder) FILTER (WHERE price > 1) AS b, first(price) AS f FROM bid GROUP BY tumble(ts, '10 s')"
    )
    assert "CAST(SIZE(COLLECT_SET(bidder) FILTER(WHERE price > 1)) AS BIGINT)" in found
    assert "MIN_BY(price, ts)" in found


def test_windows_are_joined_by_their_hidden_time() -> None:
    inner = "SELECT {0} AS k, window_start, window_end FROM {1} GROUP BY tumble(ts, '10 s'), {0}"
    found = text(
        f"SELECT x.k FROM ({inner.format('id', 'person')}) x JOIN ({inner.format('seller', 'auction')}) y"
        " ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end"
    )
    assert f"x.{WINDOW_TIME} = y.{WINDOW_TIME}" in found
    assert "x.window_end = y.window_end" not in found


def test_spark_refuses_what_the_subset_refuses() -> None:
    with pytest.raises(UnsupportedQuery, match="LIMIT"):
        to_spark(step("SELECT auction FROM bid LIMIT 1"))


@pytest.mark.parametrize(
    ("sql", "mode", "construct"),
    [
        (
            "SELECT * FROM bid QUALIFY row_number() OVER (PARTITION BY auction ORDER BY ts) = 1",
            "update",
            "ROW_NUMBER()",
        ),
        (
            (
                "SELECT sum(n) AS n FROM (SELECT window_time, count(*) AS n FROM bid GROUP BY tumble(ts, '1 s')) GROUP BY"
                " tumble(window_time, '10 s')"
            ),
            "update",
            "mode 'update'",
        ),
        (
            "SELECT a.id FROM auction a LEFT JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE",
            "update",
            "LEFT JOIN",
        ),
        ("SELECT auction, count(*) AS n FROM bid GROUP BY auction", "update", ""),
        ("SELECT auction FROM bid", "append", ""),
    ],
)
def test_what_only_the_embedded_engine_runs_is_told(sql: str, mode: plan.Mode, construct: str) -> None:
    found = spark_restrictions(plan.Pipeline("p", step(sql), (), mode=mode))
    assert [refusal.construct.startswith(construct) for refusal in found] == ([True] if construct else [])


def test_a_table_that_is_reloaded_is_refused_on_spark() -> None:
    rates = plan.TableRef("rates", AUCTION.schema, url="rates.parquet", reload_us=1_000_000)
    sql = plan.SqlStep(
        "q", "SELECT b.price FROM bid b JOIN rates r ON b.auction = r.id", (("bid", BID), ("rates", rates))
    )
    assert [refusal.construct for refusal in spark_restrictions(plan.Pipeline("p", sql, ()))] == ["reload of a table"]
