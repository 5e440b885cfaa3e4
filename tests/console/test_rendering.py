"""How numbers, times and bodies are written for people."""

from __future__ import annotations

import pytest

from headrace.console.rendering import age, count, one_line, part, pretty, rate_text, size, spark


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.42, "0.4 s"), (12.3, "12 s"), (250, "4m 10s"), (11_100, "3h 5m"), (86_400, "1d")],
)
def test_age(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_numbers() -> None:
    assert [count(value) for value in (None, 0, 1_234, 2_340_000)] == ["–", "0", "1,234", "2.34 M"]
    assert [rate_text(value) for value in (0, 0.44, 99.96, 1_234.5)] == ["0", "0.4", "100.0", "1,234"]
    assert [size(value) for value in (0, 12, 3_500, 1_048_576)] == ["0 B", "12 B", "3.4 KiB", "1.0 MiB"]


def test_json_is_laid_out_and_its_numbers_stay_as_written() -> None:
    shown = pretty('{"id":12345678901234567890123,"price":1.50,"ok":true,"text":"a<b>"}')
    assert "12345678901234567890123" in shown and "1.50" in shown
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert shown.count("\n") == 5


@pytest.mark.parametrize(
    "body", ["<script>alert(1)</script>", '{"a":"<script>alert(1)</script>"}', '{"<script>":1', '["</code><script>"]']
)
def test_no_body_becomes_markup(body: str) -> None:
    shown = pretty(body).replace('<span class="json-', "").replace("</span>", "")
    assert "<" not in shown


def test_a_deep_or_long_body_is_shown_as_it_is() -> None:
    assert pretty("[" * 50_000) == "[" * 20_000
    assert str(pretty("[" * 15_000)) == "[" * 15_000


def test_a_line_is_one_and_short() -> None:
    assert one_line("a\n\n  b\tc") == "a b c"
    assert len(one_line("word " * 10_000)) == 160


def test_a_name_is_one_part_of_a_path() -> None:
    assert part("arn:aws:sqs:x:1:q") == "arn%3Aaws%3Asqs%3Ax%3A1%3Aq"
    assert "/" not in part("../a/b?c#d") and "?" not in part("a?b")


def test_a_sparkline_has_gaps_where_nobody_looked() -> None:
    drawn = spark([1.0, 2.0, None, 3.0])
    line = drawn.split('class="spark-line" d="')[1]
    assert line.count("M") == 2
    assert 'd=""' in spark([None, None])
