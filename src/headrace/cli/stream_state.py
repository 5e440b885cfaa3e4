"""`headrace stream show|lag|state|pause|resume|reset`: pipelines by their state in the broker alone."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli import output as out
from headrace.cli.options import broker_option, confirm_name, open_client, output_option, yes_option

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.native.client import Client
    from headrace.stream.runner.admin import Lag, PipelineStatus
    from headrace.stream.runner.store import Store

LAG_COLUMNS = ("source", "reads", "waiting", "claimed", "oldest_seconds", "rows", "watermark")

pipeline_argument = click.argument("name", metavar="PIPELINE")


@click.command("show")
@pipeline_argument
@broker_option
@output_option
def show(name: str, target: str, output: str | None) -> None:
    """Show a pipeline: who runs it, how far it is, how much state it has, its plan."""
    from headrace.stream.runner import admin  # noqa: PLC0415

    with open_client(target) as client:
        found = admin.pipeline_status(client, name, measured=True)
        row = _row(found, client.statistics().now_ms)
    row |= {
        "state_bytes": found.state_bytes,
        "state_parts": found.state_parts,
        "batches": found.progress.batch,
        "shards": found.definition.shards,
        "run_by_at_most": _places(found),
        "sources": found.definition.sources,
    }
    if out.chosen(output) != "table":
        row["plan"] = found.definition.text
    out.print_row(row, output)
    if out.chosen(output) == "table" and found.definition.text:
        click.echo("\n" + found.definition.text)


def _places(found: PipelineStatus) -> str:
    """How many processes can share the pipeline, and why not several."""
    alone = found.definition.alone
    return f"1 process: {alone}" if alone else f"{found.definition.shards} processes"


@click.command("lag")
@pipeline_argument
@broker_option
@output_option
def lag(name: str, target: str, output: str | None) -> None:
    """Show how far each source of a pipeline is behind."""
    from headrace.stream.runner import admin  # noqa: PLC0415

    with open_client(target) as client:
        now_ms = client.statistics().now_ms
        rows = [_lag_row(found, now_ms) for found in admin.lags(client, name)]
    out.print_rows(rows, output, LAG_COLUMNS, none="The pipeline has no sources.")


@click.command("state")
@pipeline_argument
@click.option("--operator", help="Only this operator's state; without it, all of them are listed.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows to print at most.")
@click.option("--sql", "query", help="A query over the state: each operator is a table of its name (aggregate_1, …).")
@broker_option
@output_option
def state(name: str, operator: str | None, limit: int, query: str | None, target: str, output: str | None) -> None:
    """Show what a pipeline remembers.

    Without options, the operators that have state; with --operator or --sql, its rows. A row is a partial result of a
    shard and bucket (a pane's start in µs since 1970, for windows).
    """
    with open_client(target) as client:
        if operator is not None:
            table = _table(client, name, operator)
        elif query is not None:
            table = _queried(client, name, query)
        else:
            out.print_rows(
                _summary(client, name), output, ("operator", "rows", "shards", "columns"), none="It has no state."
            )
            return
    rows = [_plain(row) for row in table.slice(0, limit).to_pylist()]
    out.print_rows(rows, output, tuple(table.column_names), none="There are no rows.")
    if table.num_rows > limit:
        click.echo(f"… and {table.num_rows - limit:,} more; --limit shows more of them", err=True)


@click.command("pause")
@pipeline_argument
@broker_option
def pause(name: str, target: str) -> None:
    """Let a pipeline rest: whoever runs it finishes its batch and takes no other, within 2 s. Messages wait."""
    _control(target, name, paused=True)


@click.command("resume")
@pipeline_argument
@broker_option
def resume(name: str, target: str) -> None:
    """Let a paused pipeline go on."""
    _control(target, name, paused=False)


@click.command("reset")
@pipeline_argument
@yes_option
@broker_option
def reset(name: str, yes: bool, target: str) -> None:
    """Drop a pipeline's state, so that it starts anew.

    What it has claimed is visible again; what it has acknowledged is gone. A topic's log is read again from its beginning.
    """
    from headrace.stream.runner import admin  # noqa: PLC0415
    from headrace.stream.runner.admin import reset as drop_state  # noqa: PLC0415

    with open_client(target) as client:
        admin.pipeline_status(client, name)
        confirm_name(name, f"This drops the state of the pipeline {name}.", yes=yes)
        removed = drop_state(_store(client, name), client, name)
    click.echo(f"{name}: {removed:,} values of state were removed.", err=True)


def _control(target: str, name: str, *, paused: bool) -> None:
    from headrace.stream.runner import admin  # noqa: PLC0415
    from headrace.stream.runner.store import Control, write_control  # noqa: PLC0415

    with open_client(target) as client:
        admin.pipeline_status(client, name)
        write_control(_store(client, name), name, Control(paused))


def _store(client: Client, name: str) -> Store:
    from headrace.stream.runner import state_keys  # noqa: PLC0415
    from headrace.stream.runner.store import BrokerStore, RetryPolicy  # noqa: PLC0415

    return BrokerStore(client, state_keys.state_name(name), RetryPolicy(0, threading.Event()))


def _row(found: PipelineStatus, now_ms: int) -> out.Row:
    from headrace.stream.result import watermark_text  # noqa: PLC0415

    progress = found.progress
    timed = [source.watermark for source in progress.sources.values()]
    return {
        "pipeline": found.pipeline,
        "run_by": ", ".join(f"{member.host.partition('/')[0]}:{member.pid}" for member in found.members) or None,
        "paused": found.paused,
        "rows_in": progress.rows_in,
        "rows_out": progress.rows_out,
        "late": progress.late,
        "dead": progress.dead,
        "watermark": watermark_text(min(timed)) if timed else None,
        "last_commit_seconds": (now_ms - progress.committed_ms) / 1_000 if progress.committed_ms else None,
    }


def _lag_row(found: Lag, now_ms: int) -> out.Row:
    from headrace.stream.result import watermark_text  # noqa: PLC0415

    return {
        "source": found.source,
        "reads": found.reads,
        "waiting": found.waiting,
        "claimed": found.claimed,
        "oldest_seconds": (now_ms - found.oldest_ms) / 1_000 if found.oldest_ms is not None else None,
        "rows": found.progress.rows,
        "watermark": watermark_text(found.progress.watermark),
    }


def _summary(client: Client, name: str) -> list[out.Row]:
    from headrace.stream.runner import admin  # noqa: PLC0415

    rows = []
    for operator, schema in admin.state_schemas(client, name).items():
        tables = list(admin.state_rows(client, name, operator))
        shards = {table.column("shard")[0].as_py() for table in tables if table.num_rows}
        rows.append(
            {
                "operator": operator,
                "rows": sum(table.num_rows for table in tables),
                "shards": len(shards),
                "columns": ", ".join(f"{field.name} {field.type}" for field in schema),
            }
        )
    return rows


def _table(client: Client, name: str, operator: str) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    from headrace.stream.runner import admin  # noqa: PLC0415

    schemas = admin.state_schemas(client, name)
    if operator not in schemas:
        raise click.UsageError(f"--operator {operator}: there is no such state; it has {', '.join(schemas) or 'none'}")
    tables = list(admin.state_rows(client, name, operator))
    return pa.concat_tables(tables) if tables else schemas[operator].empty_table()


def _queried(client: Client, name: str, query: str) -> pa.Table:
    """The query's result. DuckDB without files and network: the text is the user's, but it may be pasted."""
    import duckdb  # noqa: PLC0415

    from headrace.stream.runner import admin  # noqa: PLC0415

    with duckdb.connect(config={"enable_external_access": False}) as connection:
        connection.sql("SET TimeZone='UTC'")
        for operator in admin.state_schemas(client, name):
            connection.register(operator.replace("-", "_"), _table(client, name, operator))
        try:
            return connection.sql(query).to_arrow_table()
        except (duckdb.Error, AttributeError) as error:
            raise click.UsageError(f"--sql: {error}") from None


def _plain(row: dict[str, Any]) -> out.Row:
    """What JSON has no form for, as text. A sum of integers is a decimal in DuckDB; it is a number again."""
    return {key: msgspec.to_builtins(_whole(value), enc_hook=str) for key, value in row.items()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value.as_tuple().exponent == 0 else value
