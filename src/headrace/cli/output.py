"""How results are printed: a table for people, JSON or a JSON line each for programs."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from headrace.native.messages import StoredMessage

Row = dict[str, Any]


def chosen(output: str | None) -> str:
    """The form asked for; a table only where a person looks."""
    return output or ("table" if sys.stdout.isatty() else "json")


def print_rows(rows: Sequence[Row], output: str | None, columns: Sequence[str], *, none: str) -> None:
    """Print a list. `columns` are the keys that a table shows; `none` is what it says when there are no rows."""
    match chosen(output):
        case "json":
            print_json(list(rows))
        case "jsonl":
            for row in rows:
                click.echo(msgspec.json.encode(row).decode())
        case _ if not rows:
            click.echo(none, err=True)
        case _:
            make_console().print(table(rows, columns))


def print_row(row: Row, output: str | None) -> None:
    """Print one thing; as a table, a line a key."""
    match chosen(output):
        case "json":
            print_json(row)
        case "jsonl":
            click.echo(msgspec.json.encode(row).decode())
        case _:
            width = max(len(key) for key in row)
            for key, value in row.items():
                click.echo(f"{_heading(key):<{width}}  {_cell(key, value)}")


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def message_row(message: StoredMessage) -> Row:
    """What a message is, for printing. A body that is no text is given in base64, under another key."""
    body: Row
    try:
        body = {"body": message.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(message.body).decode()}
    row: Row = {"id": message.id, "sequence": message.sequence, "sent_at": moment(message.sent_at), **body}
    optional = {
        "group": message.group,
        "dedup_id": message.dedup_id,
        "attributes": message.attributes,
        "dead_letter_of": message.dead_letter_of,
    }
    return row | {key: value for key, value in optional.items() if value}


def print_messages(rows: Sequence[Row], output: str | None, *, none: str) -> None:
    """Print messages; for people one after another, the body below, JSON bodies pretty."""
    if chosen(output) != "table":
        return print_rows(rows, output, (), none=none)
    if not rows:
        return click.echo(none, err=True)
    console = make_console()
    for row in rows:
        _print_message(console, row)
    return None


def make_console(*, stderr: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only tables need

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table(rows: Sequence[Row], columns: Sequence[str]) -> Table:
    """Rows as a table of those columns."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - as in make_console
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        shown.add_column(
            _heading(column),
            justify="right" if numeric else "left",
            no_wrap=column == columns[0],
            overflow="fold",
            min_width=_word_width(column, rows),
        )
    for row in rows:
        shown.add_row(*[Text(_short_cell(column, row.get(column))) for column in columns])
    return shown


def _word_width(column: str, rows: Sequence[Row]) -> int:
    """Of the longest word, so that a narrow terminal breaks lines between words and cuts no numbers; within reason."""
    texts = [_heading(column), *(_short_cell(column, row.get(column)) for row in rows)]
    words = texts if _is_moment(column) else [word for text in texts for word in text.split()]
    return min(24, max(map(len, words), default=1))


def moment(at: datetime) -> str:
    """A point in time, to the millisecond, as programs read it."""
    return at.isoformat(timespec="milliseconds")


def messages_text(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def age(seconds: float | None) -> str:
    """A time span in the two units that matter: `4m 10s`."""
    if seconds is None:
        return "–"
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = int(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("m", whole // 60 % 60), ("s", whole % 60))
    shown = [f"{count}{unit}" for unit, count in units if count]
    return " ".join(shown[:2]) or "0s"


def _print_message(console: Console, row: Row) -> None:
    from rich.text import Text  # noqa: PLC0415

    facts = [
        f"{_heading(key)} {_cell(key, value)}" for key, value in row.items() if key not in ("id", "body", "body_base64")
    ]
    console.print(Text(str(row["id"]), style="bold"), Text("  ·  ".join(facts), style="dim"))
    text = row.get("body", row.get("body_base64"))
    console.print(Text("  " + _pretty(str(text)).replace("\n", "\n  ")))


def _pretty(body: str) -> str:
    """JSON objects and arrays indented, anything else as it is."""
    if body[:1] in ("{", "["):
        with contextlib.suppress(msgspec.DecodeError):
            body = msgspec.json.format(body, indent=2)
    return _visible(body)


def _visible(text: str) -> str:
    """What a message carries must not steer the terminal: control characters are shown as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _heading(key: str) -> str:
    return key.removesuffix("_seconds").replace("_", " ")


def _is_moment(key: str) -> bool:
    return key.rsplit("_", maxsplit=1)[-1] == "at"


def _short_cell(key: str, value: Any) -> str:
    """As `_cell`; a moment to the second, so that it fits and is never cut."""
    return value[:19].replace("T", " ") if _is_moment(key) and isinstance(value, str) else _cell(key, value)


def _cell(key: str, value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        return _visible(bytes(value).decode())
    if key.endswith("_seconds"):
        return age(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "–"
    return _visible(str(value))
