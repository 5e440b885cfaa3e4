"""What the subset lacks is refused with the construct, its place, and what to write instead."""

import pytest

from headrace.stream import plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema
from tests.stream.sql.building import BID, compiled

REFUSED = [
    # text, construct, line, column, a word of what to write instead
    ("SELECT DISTINCT auction FROM bid", "DISTINCT", (1, 17), "dedup"),
    ("SELECT auction FROM bid ORDER BY auction", "ORDER BY", (1, 34), "ROW_NUMBER"),
    ("SELECT auction\nFROM bid\nLIMIT 3", "LIMIT", (3, 7), "ROW_NUMBER"),
    ("SELECT auction, sum(price) OVER (PARTITION BY auction) AS s FROM bid", "sum(price) OVER …", (1, 17), "ROW_NUMBER"),
    ("SELECT (SELECT 1) AS x FROM bid", "(SELECT 1)", (1, 16), "JOIN"),
    ("SELECT auction FROM bid WHERE auction IN (SELECT id FROM auction)", "IN (SELECT …)", (1, 31), "JOIN"),
    ("SELECT auction FROM bid WHERE EXISTS (SELECT id FROM auction)", "EXISTS(", (1, 46), "JOIN"),
    ("SELECT b.auction FROM bid b CROSS JOIN auction a", "CROSS JOIN", (1, 40), "ON a.id = b.id"),
    ("SELECT b.auction FROM bid b NATURAL JOIN auction a", "NATURAL JOIN", (1, 42), "ON"),
    ("SELECT b.auction FROM bid b LEFT SEMI JOIN auction a ON a.id = b.auction", "SEMI JOIN", (1, 44), "dedup"),
    ("SELECT b.auction FROM bid b LEFT ANTI JOIN auction a ON a.id = b.auction", "ANTI JOIN", (1, 44), "IS NULL"),
    ("SELECT auction FROM bid LATERAL VIEW explode(array(1)) t AS x", "LATERAL VIEW", (1, 38), "flat_map"),
    ("SELECT auction FROM bid INTERSECT SELECT id FROM auction", "INTERSECT", (1, 8), "JOIN"),
    ("SELECT auction FROM bid EXCEPT SELECT id FROM auction", "EXCEPT", (1, 8), "JOIN"),
    ("SELECT auction FROM bid UNION SELECT id FROM auction", "UNION", (1, 8), "UNION ALL"),
    ("SELECT auction, count(*) AS n FROM bid GROUP BY ROLLUP(auction)", "GROUP BY ", (1, 56), "UNION ALL"),
    ("SELECT auction, count(*) AS n FROM bid GROUP BY CUBE(auction)", "GROUP BY ", (1, 54), "UNION ALL"),
    ("SELECT auction, count(*) AS n FROM bid GROUP BY GROUPING SETS ((auction), ())", "GROUP BY ", (1, 65), "UNION ALL"),
    ("SELECT rand() AS r FROM bid", "rand()", (1, 8), "hash"),
    ("SELECT uuid() AS r FROM bid", "uuid()", (1, 8), "hash"),
    ("SELECT now() AS r FROM bid", "now()", (1, 8), "event-time"),
    ("SELECT current_timestamp() AS r FROM bid", "current_timestamp()", (1, 8), "event-time"),
    ("SELECT 1 AS x", "SELECT without FROM", (1, 8), "FROM"),
    ("INSERT INTO t SELECT auction FROM bid", "INSERT", (1, 13), "sink"),
    ("CREATE TABLE t AS SELECT auction FROM bid", "CREATE", (1, 14), "sink"),
    ("DELETE FROM bid", "DELETE", (1, 13), "sink"),
    ("VALUES (1)", "VALUES", (1, 9), "sink"),
    ("SELECT /*+ BROADCAST(bid) */ auction FROM bid", "a hint", (1, 2), "leave it out"),
    ("SELECT * FROM bid PIVOT (sum(price) FOR auction IN (1, 2))", "PIVOT", (1, 26), "FILTER"),
    ("SELECT auction FROM bid TABLESAMPLE (10 PERCENT)", "TABLESAMPLE", (1, 38), "pmod"),
    ("WITH RECURSIVE r AS (SELECT auction FROM bid) SELECT * FROM r", "WITH RECURSIVE", (1, 16), ""),
    ("SELECT explode(array(1)) AS x FROM bid", "explode(ARRAY(1))", (1, 8), "flat_map"),
    ("SELECT upperr(url) AS x FROM bid", "upperr()", (1, 8), "upper"),
    ("SELECT auktion FROM bid", "auktion", (1, 8), "auction"),
    ("SELECT auction FROM bids", "bids", (1, 21), "bid"),
    ("SELECT x.auction FROM bid b", "x.auction", (1, 8), ""),
    ("SELECT price + 1 FROM bid", "price + 1", (1, 8), "AS name"),
    ("SELECT auction, price AS auction FROM bid", "auction", (1, 17), "AS other"),
    ("SELECT url + 1 AS x FROM bid", "url + 1", (1, 8), "CAST"),
    ("SELECT CAST(array(url) AS string) AS x FROM bid", "CAST(ARRAY(url) AS STRING)", (1, 13), ""),
    ("SELECT array(price) < array(auction) AS x FROM bid", "ARRAY(price)", (1, 8), "elements"),
    ("SELECT greatest(array(price), array(auction)) AS x FROM bid", "GREATEST(ARRAY(price), ARRAY(auction))", (1, 8), "elements"),
    ("SELECT max(array(price)) AS x FROM bid GROUP BY tumble(ts, '1 s')", "MAX(ARRAY(price))", (1, 8), "elements"),
    ("SELECT CAST(ts AS boolean) AS x FROM bid", "CAST(ts AS BOOLEAN)", (1, 13), ""),
    ("SELECT split(url, 'a*') AS x FROM bid", "SPLIT(url, 'a*')", (1, 8), "one character"),
    ("SELECT url RLIKE '[[:alpha:]]' AS x FROM bid", "RLIKE(url, '[[:alpha:]]')", (1, 8), "simpler"),
    ("SELECT url RLIKE '(?i)ä' AS x FROM bid", "RLIKE(url, '(?i)ä')", (1, 8), "simpler"),
    ("SELECT trunc(ts, 'day') AS x FROM bid", "TRUNC(ts, 'day')", (1, 8), "date_trunc"),
    ("SELECT to_date(url, 'yy') AS x FROM bid", "TO_DATE(url, 'yy')", (1, 8), "yyyy"),
    ("SELECT auction FROM bid WHERE price", "price", (1, 31), "not bigint"),
    ("SELECT auction FROM bid WHERE auction > 1 OR price", "price", (1, 46), "not bigint"),
    ("SELECT NOT price AS x FROM bid", "price", (1, 12), "not bigint"),
    ("SELECT if(price, 1, 2) AS x FROM bid", "price", (1, 11), "not bigint"),
    ("SELECT CASE WHEN price THEN 1 END AS x FROM bid", "price", (1, 18), "not bigint"),
    ("SELECT window_start, auction, price FROM bid GROUP BY tumble(ts, '10 s'), auction", "price", (1, 31), "GROUP BY"),
    ("SELECT count(*) AS n FROM bid GROUP BY tumble(ts)", "tumble(ts)", (1, 40), "tumble(ts, '10 seconds')"),
    ("SELECT count(*) AS n FROM bid GROUP BY tumble(ts, 'x')", "'x'", (1, 51), "10 minutes"),
    ("SELECT count(*) AS n FROM bid GROUP BY hop(ts, '2 s', '10 s')", "hop(ts, '2 s', '10 s')", (1, 40), "slide"),
    ("SELECT count(*) AS n FROM auction GROUP BY tumble(expires, '2 s')", "tumble(expires, '2 s')", (1, 44), "ts"),
    ("SELECT count(*) AS n FROM untimed GROUP BY tumble(ts, '2 s')", "tumble(ts, '2 s')", (1, 44), "with_watermark"),
    ("SELECT max(count(*)) AS n FROM bid GROUP BY tumble(ts, '2 s')", "max(COUNT(*))", (1, 8), "query over a query"),
    ("SELECT sum(url) AS n FROM bid GROUP BY tumble(ts, '2 s')", "sum(url)", (1, 8), "a number, not string"),
    ("SELECT sum(DISTINCT price) AS n FROM bid GROUP BY tumble(ts, '2 s')", "sum(DISTINCT price)", (1, 8), "count(DISTINCT"),
    ("SELECT percentile(price, 2) AS n FROM bid GROUP BY tumble(ts, '2 s')", "percentile(price, 2)", (1, 8), ""),
    ("SELECT tumble(ts, '2 s') AS w FROM bid", "tumble(ts, '2 s')", (1, 8), "GROUP BY"),
    ("SELECT auction, count(*) AS n FROM bid GROUP BY auction", "GROUP BY without a window", (0, 0), "mode='update'"),
    ("SELECT *, row_number() OVER (PARTITION BY auction ORDER BY ts) AS rn FROM bid", "ROW_NUMBER", (1, 11), "WHERE rn <="),
    ("SELECT * FROM bid QUALIFY row_number() OVER (PARTITION BY auction ORDER BY ts) = 1", "ROW_NUMBER()", (1, 27), "update"),
    ("SELECT * FROM bid QUALIFY price = 1", "QUALIFY price = 1", (1, 27), "ROW_NUMBER"),
    ("SELECT id FROM rates", "rates", (1, 16), "FROM a stream"),
    ("SELECT b.price FROM bid b RIGHT JOIN rates r ON r.id = b.auction", "RIGHT JOIN rates", (1, 49), "LEFT JOIN"),
    ("SELECT b.price FROM bid b LEFT JOIN auction a ON a.id = b.auction", "LEFT JOIN", (1, 37), "BETWEEN"),
    ("SELECT b.price FROM bid b JOIN auction a ON a.ts > b.price", "JOIN without equality", (1, 32), "a.id = b.id"),
    ("SELECT regexp_extract(url, '(?=a)b', 0) AS x FROM bid", "regexp_extract(", (1, 8), "Python"),
    ("SELECT regexp_replace(url, '(a)\\\\1', '') AS x FROM bid", "regexp_replace(", (1, 8), "Python"),
    ("SELECT url RLIKE auction AS x FROM bid", "RLIKE", (1, 8), "'…'"),
    ("SELECT price AS p,\n (CAST(price AS double) / INTERVAL 3 SECONDS) AS x FROM bid", "(CAST(price AS DOUBLE) /", (2, 8), "CAST"),
    ("SELECT url IN (auction, 'x') AS x FROM bid", "auction", (1, 16), "bigint does not go with string"),
    ("SELECT url BETWEEN 'x' AND price AS x FROM bid", "price", (1, 28), "CAST"),
    ("SELECT price BETWEEN SYMMETRIC 9 AND 1 AS x FROM bid", "BETWEEN SYMMETRIC", (1, 8), "least"),
    ("SELECT CAST(price AS double) div 2 AS x FROM bid", "CAST(price AS double) div 2", (1, 13), "bigint"),
    ("SELECT url = price AS x FROM bid", "price", (1, 14), "CAST"),
    ("SELECT coalesce(price > 1, price) AS x FROM bid", "price", (1, 28), "CAST"),
    ("SELECT CASE WHEN price > 1 THEN price ELSE url END AS x FROM bid", "url", (1, 44), "CAST"),
    ("SELECT if(price > 1, price = 1, price) AS x FROM bid", "price", (1, 33), "CAST"),
    ("SELECT bit_count(CAST(price AS double)) AS x FROM bid", "bit_count(", (1, 8), "bigint"),
    ("SELECT (price > 1) = price AS x FROM bid", "price", (1, 22), "CAST"),
    ("SELECT window_start, count(*) AS n FROM windowed GROUP BY tumble(ts, '2 s'), window_start", "window_start", (1, 78), "AS other"),
    ("SELECT date_format(ts, 'qqq') AS x FROM bid", "date_format(", (1, 8), "yyyy"),
    ("SELECT substring(url) AS x FROM bid", "substring()", (1, 8), ""),
    ("SELECT CAST(url AS variant) AS x FROM bid", "CAST(", (1, 13), ""),
    ("SELECT auction FROM bid; SELECT id FROM auction", ";", (0, 0), "a step for each"),
    ("SELECT auction FROM", "", (1, 16), ""),
    ("", "an empty text", (0, 0), ""),
    ("SELECT count(*) AS n FROM bid GROUP BY window(ts, '10 s')", "", None, "tumble"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "construct", "place", "instead"), REFUSED)
def test_it_is_refused_with_its_place_and_a_way_out(
    text: str, construct: str, place: tuple[int, int] | None, instead: str
) -> None:
    with pytest.raises(UnsupportedQuery) as caught:
        compiled(text)
    error = caught.value
    assert error.construct.lower().startswith(construct.lower())
    assert instead.lower() in str(error).lower()
    assert place is None or (error.line, error.column) == place
    assert error.step == "q"


def test_a_session_is_refused_as_a_result_that_changes() -> None:
    text = "SELECT count(*) AS n FROM bid GROUP BY session_window(ts, '10 s')"
    with pytest.raises(UnsupportedQuery, match=r"session_window in mode 'update' \(line 1, column 40\)"):
        compiled(text, "update")
    assert len(compiled(text, "append").operators) == 3


def test_an_aggregate_over_results_that_change_is_refused() -> None:
    text = "SELECT max(n) AS m FROM (SELECT auction, count(*) AS n FROM bid GROUP BY auction) GROUP BY n"
    with pytest.raises(UnsupportedQuery, match="would read results that still change"):
        compiled(text, "update")


def test_unknown_metadata_is_refused() -> None:
    source = plan.QueueSource("m", "m", Schema.of("a int"), metadata=("offset",))
    with pytest.raises(UnsupportedQuery, match="messages have no such metadata"):
        compiled("SELECT a FROM m", "append", ("m", source))


def test_a_step_may_have_the_name_of_its_input() -> None:
    assert compiled("SELECT bid.auction FROM bid AS bid", "append", ("other", BID)).output.schema.names == ["auction"]


def test_what_is_no_sql_is_told_without_names_of_classes() -> None:
    with pytest.raises(
        UnsupportedQuery, match=r"FROM \(line 1, column 9\): this is not SQL: something is missing beside it"
    ) as refused:
        compiled("SELEC * FROM bid")
    assert "class" not in str(refused.value)
