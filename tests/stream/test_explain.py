"""A pipeline in words and as a picture."""

import re
from xml.etree import ElementTree as ET

import headrace.stream as hs
from headrace.stream.explain import explain, mermaid, picture
from headrace.svg_graph import PAD, Box, place


def pipeline() -> hs.Pipeline:
    a = hs.memory("id bigint, s string, ts timestamp", [], name="a<b>").with_watermark("ts", delay="2 s")
    b = hs.memory("id bigint, ts timestamp", [], name="b").with_watermark("ts")
    joined = hs.sql(
        "SELECT x.id, x.s, x.ts FROM x JOIN b ON x.id = b.id AND b.ts BETWEEN x.ts AND x.ts + INTERVAL 1 MINUTE", x=a
    )
    counts = joined.sql(
        "SELECT window_start, s, count(*) AS n FROM input GROUP BY tumble(ts, '10 s'), s", name="counts"
    )
    del b
    return hs.pipeline("p", counts, sink=[hs.queue("out"), hs.console()])


def test_the_text_names_operators_state_and_sql() -> None:
    text = explain(pipeline().plan, sql=True)
    assert "Pipeline p (mode append, 8 shards) → queue out, console" in text
    assert "inner join of 0, 2: id = b_id, right from 0 seconds to 1 minute after left" in text
    assert "aggregate of 4: tumble 10 seconds by s: n = count(*)" in text
    assert "remembers a row for each open window and key" in text
    assert "WINDOW(ts, '10 seconds')" in text


def test_what_spark_cannot_run_is_said() -> None:
    stream = hs.memory("id bigint, ts timestamp", []).with_watermark("ts")
    last = stream.sql("SELECT * FROM input QUALIFY row_number() OVER (PARTITION BY id ORDER BY ts DESC) = 1")
    text = hs.pipeline("p", last, mode="update").explain()
    assert "Not on Spark" in text and "Warnings" in text
    assert "SQL on Spark" not in hs.pipeline("p", last, mode="update").explain(sql=True)


def test_the_plan_says_what_sql_calls_each_stream_and_names_no_step_twice() -> None:
    rows = hs.memory("n bigint", [], name="rows")
    text = hs.pipeline("p", hs.sql("SELECT n FROM large", large=rows.filter(lambda row: row["n"] > 1))).explain()
    assert "\n  sql: SELECT n FROM large\n    large = filter: n bigint\n      memory rows: n bigint\n" in text


def test_the_picture_is_xml_with_a_box_for_everything() -> None:
    found = ET.fromstring(picture(pipeline().plan))
    boxes = [node for node in found.iter() if node.tag.endswith("rect")]
    arrows = [node for node in found.iter() if node.get("class") == "arrow"]
    assert len(boxes) == len(pipeline().physical.operators) + 2
    assert len(arrows) == len(boxes) - 1
    texts = [node.text for node in found.iter()]
    assert "memory a<b> (event time ts," in texts and "delay 2 seconds)" in texts


def test_mermaid_escapes_what_it_would_read() -> None:
    text = mermaid(pipeline().plan)
    assert text.startswith("flowchart LR\n")
    assert "a#60;b#62;" in text and "n0 --> " in text


def test_boxes_stand_right_of_their_inputs_and_do_not_overlap() -> None:
    boxes = [Box("a", "x" * 200, ()), Box("b", "", ()), Box("c", "", (0, 1)), Box("d", "", (2, 0))]
    placed = place(boxes)
    for item in placed:
        assert all(placed[below].x < item.x for below in item.box.inputs)
    assert placed[1].y >= placed[0].y + placed[0].box.height
    assert len(boxes[0].lines()) == 4


def test_a_source_stands_beside_what_reads_it_so_that_no_arrow_passes_behind_boxes() -> None:
    boxes = [
        Box("early", "", ()),
        Box("source", "", ()),
        Box("filter", "", (1,)),
        Box("join", "", (0, 2)),
        Box("sink", "", (3,)),
    ]
    placed = place(boxes)
    assert placed[0].x == placed[2].x < placed[3].x < placed[4].x
    assert place([Box("alone", "", ())])[0].x == PAD
    assert place([]) == []


def test_the_picture_styles_nothing_but_itself() -> None:
    style = next(node.text for node in ET.fromstring(picture(pipeline().plan)).iter() if node.tag.endswith("style"))
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", (style or "").replace("@media (prefers-color-scheme: dark) {", ""))
    assert len(rules) > 5
    assert all(rule.strip().startswith(".plan ") for rule in rules)
