"""Descriptions of a pipeline: as text, as a Mermaid flowchart, as SVG (`headrace/svg_graph.py`)."""

from __future__ import annotations

from headrace.durations import duration_text
from headrace.stream import physical, plan
from headrace.stream.sql import compile as compile_plan
from headrace.stream.sql import spark_restrictions, to_spark
from headrace.svg_graph import Box, draw


def explain(pipeline: plan.Pipeline, *, sql: bool = False) -> str:
    """The logical plan, the operators with their state, and warnings; with `sql` the SQL of both engines.

    Raises:
        UnsupportedQuery: the pipeline cannot be compiled.
    """
    compiled = compile_plan(pipeline)
    parts = [_heading(pipeline), "\n".join(_tree(pipeline.output, "")), "", "Operators", *_operators(compiled)]
    if compiled.warnings:
        parts += ["", "Warnings", *(f"  {warning}" for warning in compiled.warnings)]
    refusals = spark_restrictions(pipeline)
    if refusals:
        parts += ["", "Not on Spark", *(f"  {refusal}" for refusal in refusals)]
    if sql:
        parts += _sql_on_duckdb(compiled) + ([] if refusals else _sql_on_spark(pipeline))
    return "\n".join(parts) + "\n"


def mermaid(pipeline: plan.Pipeline) -> str:
    """The operators as a Mermaid flowchart."""
    boxes = boxes_of(pipeline, compile_plan(pipeline))
    lines = ["flowchart LR"]
    lines += [f'  n{place}["{_entities(box.title)}<br/>{_entities(box.text)}"]' for place, box in enumerate(boxes)]
    lines += [f"  n{below} --> n{place}" for place, box in enumerate(boxes) for below in box.inputs]
    return "\n".join(lines) + "\n"


def picture(pipeline: plan.Pipeline) -> str:
    """The operators as an SVG, light or dark as its reader likes."""
    return draw(boxes_of(pipeline, compile_plan(pipeline)), f"pipeline {pipeline.name}")


def _heading(pipeline: plan.Pipeline) -> str:
    sinks = ", ".join(sink_text(sink) for sink in pipeline.sinks) or "no sink"
    asides = [f"late rows: {pipeline.late_queue or 'counted'}", f"dead rows: {pipeline.dead_letter_queue or 'stop it'}"]
    return f"Pipeline {pipeline.name} (mode {pipeline.mode}, {pipeline.shards} shards) → {sinks}\n{'; '.join(asides)}\n\nPlan"


def _tree(node: plan.Node, indent: str, name: str = "") -> list[str]:
    """A line for each node below the one that reads it. `name`: what that one's SQL calls it."""
    called = f"{name} = " if name not in ("", "input", getattr(node, "name", "")) else ""
    lines = [f"{indent}  {called}{node_text(node)}"]
    for below_name, below in _named_inputs(node):
        lines += _tree(below, indent + "  ", below_name)
    if isinstance(node, plan.SqlStep):
        tables = [item for _, item in node.inputs if isinstance(item, plan.TableRef)]
        lines += [f"{indent}    table {table.name}: {table.schema}" for table in tables]
    return lines


def _named_inputs(node: plan.Node) -> list[tuple[str, plan.Node]]:
    if isinstance(node, plan.SqlStep):
        return [(name, below) for name, below in node.inputs if not isinstance(below, plan.TableRef)]
    return [("", below) for below in plan.inputs_of(node)]


def node_text(node: plan.Node) -> str:
    """A node of the plan in one line."""
    if isinstance(node, plan.SqlStep):
        return f"{_step('sql', node.name)}: {' '.join(node.text.split())}"
    if isinstance(node, plan.PythonStep):
        return f"{_step(node.kind, node.name)}: {node.schema}"
    if isinstance(node, plan.DedupStep):
        return f"dedup by {', '.join(node.keys)} within {duration_text(node.within_us)}"
    return f"{source_text(node)}: {node.schema}{_time_text(node.time)}"


def _step(kind: str, name: str) -> str:
    """`filter by_delay`; a step without a name of its own has its kind's."""
    return kind if name == kind else f"{kind} {name}"


def source_text(source: plan.Source) -> str:
    """A source in a few words."""
    if isinstance(source, plan.QueueSource):
        return f"queue {source.queue}"
    if isinstance(source, plan.TopicSource):
        return f"topic {source.topic}"
    if isinstance(source, plan.FileSource):
        return f"{source.format} files {source.path}"
    return f"memory {source.name}"


def sink_text(sink: plan.Sink) -> str:
    """A sink in a few words."""
    if isinstance(sink, plan.QueueSink):
        return f"{'topic' if sink.topic else 'queue'} {sink.queue}"
    if isinstance(sink, plan.ParquetSink):
        return f"parquet {sink.path}"
    if isinstance(sink, plan.TableSink):
        return f"table {sink.table}"
    if isinstance(sink, plan.HttpSink):
        return f"http {sink.url}"
    return "console" if isinstance(sink, plan.ConsoleSink) else "callback"


def _time_text(time: plan.EventTime | None) -> str:
    if time is None:
        return ""
    idle = f", idle after {duration_text(time.idle_us)}" if time.idle_us is not None else ""
    return f" (event time {time.column}, delay {duration_text(time.delay_us)}{idle})"


def _operators(compiled: physical.PhysicalPlan) -> list[str]:
    lines = []
    for place, operator in enumerate(compiled.operators):
        title, text = operator_text(operator)
        below = ", ".join(str(input_) for input_ in physical.inputs_of(operator))
        lines.append(f"  {place}  {title}{f' of {below}' if below else ''}: {text}")
        state = _state(operator)
        if state:
            lines.append(f"       remembers {state}")
    return lines


def operator_text(operator: physical.Operator) -> tuple[str, str]:
    """(what it is, what it does) of an operator."""
    if isinstance(operator, physical.Read):
        return "read", f"{source_text(operator.source)}{_time_text(operator.source.time)}"
    if isinstance(operator, physical.Aggregate):
        keys = f" by {', '.join(operator.keys)}" if operator.keys else ""
        return (
            "aggregate",
            f"{window_text(operator.window)}{keys}: {', '.join(map(_aggregation, operator.aggregations)) or 'groups'}",
        )
    if isinstance(operator, physical.Join):
        keys = ", ".join(f"{one} = {other}" for one, other in zip(operator.left_keys, operator.right_keys, strict=True))
        return f"{operator.kind} join", f"{keys or 'by time'}{_bounds(operator)}"
    if isinstance(operator, physical.Top):
        return (
            "top",
            f"{operator.limit} of {', '.join(operator.partition) or 'all'} by {', '.join(map(_order, operator.order))}",
        )
    if isinstance(operator, physical.Dedup):
        return "dedup", f"{', '.join(operator.keys)} within {duration_text(operator.within_us)}"
    if isinstance(operator, physical.Python):
        return operator.step.kind, operator.step.name
    return (
        ("project", ", ".join(operator.schema.names)) if isinstance(operator, physical.Project) else ("union all", "")
    )


def window_text(window: physical.Window | None) -> str:
    """A window in a few words."""
    if isinstance(window, physical.Tumble):
        return "each inner window" if window.size_us == 1 else f"tumble {duration_text(window.size_us)}"
    if isinstance(window, physical.Hop):
        return f"hop {duration_text(window.size_us)} every {duration_text(window.slide_us)}"
    return f"sessions, gap {duration_text(window.gap_us)}" if isinstance(window, physical.Session) else "all time"


def _aggregation(item: physical.Aggregation) -> str:
    called = "count(*)" if item.function == "count_all" else f"{item.function}({', '.join(item.arguments)})"
    return f"{item.name} = {called}{' filtered' if item.where else ''}"


def _order(item: tuple[str, bool, bool]) -> str:
    return f"{item[0]}{' descending' if item[1] else ''}"


def _bounds(join: physical.Join) -> str:
    if join.lower_us is None and join.upper_us is None:
        return ""
    if join.lower_us == join.upper_us:
        return ", at the same time"
    lower, upper = (_bound(bound) for bound in (join.lower_us, join.upper_us))
    return f", right from {lower} to {upper} after left"


def _bound(us: int | None) -> str:
    return "any time" if us is None else f"-{duration_text(-us)}" if us < 0 else duration_text(us)


def _state(operator: physical.Operator) -> str:
    if isinstance(operator, physical.Aggregate):
        return "a row for each open window and key" if operator.window else "a row for each key, for ever"
    if isinstance(operator, physical.Join):
        if operator.lower_us is None or operator.upper_us is None:
            return "rows of both sides, some for ever"
        return "rows of both sides, until no partner can come"
    if isinstance(operator, physical.Top):
        kept = "" if operator.per_window else ", for ever"
        return f"the first {operator.limit} rows of each partition{kept}"
    return f"each key, for {duration_text(operator.within_us)}" if isinstance(operator, physical.Dedup) else ""


def _sql_on_duckdb(compiled: physical.PhysicalPlan) -> list[str]:
    lines = ["", "SQL on DuckDB"]
    for place, operator in enumerate(compiled.operators):
        if isinstance(operator, physical.Project):
            lines.append(f"  {place}  {operator.sql.replace('/*origin*/', '')}")
        elif isinstance(operator, physical.Join) and operator.condition:
            lines.append(f"  {place}  {operator.condition}")
    return lines


def _sql_on_spark(pipeline: plan.Pipeline) -> list[str]:
    lines = ["", "SQL on Spark"]
    for node in plan.walk(pipeline.output):
        if isinstance(node, plan.SqlStep):
            lines += [f"  {node.name}", *(f"    {line}" for line in to_spark(node).text.splitlines())]
    return lines


def boxes_of(pipeline: plan.Pipeline, compiled: physical.PhysicalPlan) -> list[Box]:
    """Operators and sinks as boxes, each behind its inputs."""
    boxes = []
    for operator in compiled.operators:
        title, text = operator_text(operator)
        boxes.append(Box(title, text, physical.inputs_of(operator), isinstance(operator, physical.STATEFUL)))
    last = len(boxes) - 1
    return boxes + [Box("sink", sink_text(sink), (last,)) for sink in pipeline.sinks]


def _entities(text: str) -> str:
    """Mermaid reads quotes and brackets as its own."""
    for character in '&"<>[]{}':
        text = text.replace(character, f"#{ord(character)};")
    return text
