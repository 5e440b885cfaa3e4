"""Windows in GROUP BY: tumble, hop, session_window; and which column they may stand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeGuard

from sqlglot import exp

from headrace.stream.physical import Hop, Session, Tumble, Window
from headrace.stream.sql.analysis import Roles
from headrace.stream.sql.dialect import refused, written
from headrace.stream.sql.expressions import Writer, interval_us

_ARGUMENTS: Final = {"tumble": 2, "hop": 3, "session_window": 2}
_EXAMPLES: Final = {
    "tumble": "tumble(ts, '10 seconds')",
    "hop": "hop(ts, '10 seconds', '2 seconds') (size, then slide)",
    "session_window": "session_window(ts, '10 seconds')",
}
SAME_WINDOW: Final = Tumble(1)
"""GROUP BY window_start, window_end: each window's rows have one event time, so a microsecond holds exactly them."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A window of a GROUP BY. `node` is the call, or None for GROUP BY window_start, window_end."""

    window: Window
    node: exp.Expr | None = None

    def roles(self) -> Roles:
        """The roles of the aggregate's own columns, if it was a call."""
        if isinstance(self.window, Session):
            return Roles("window_time", "window_start", "window_end")
        size = self.window.size_us
        slide = self.window.slide_us if isinstance(self.window, Hop) else size
        return Roles("window_time", "window_start", "window_end", size, slide)


def is_window(node: exp.Expr) -> TypeGuard[exp.Anonymous]:
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in {*_ARGUMENTS, "window"}


def read(node: exp.Anonymous, writer: Writer) -> Grouped:
    """The window that a call in GROUP BY is. Raises UnsupportedQuery."""
    function = str(node.this).lower()
    if function == "window":
        raise refused(
            node, written(node), "window() is spelled differently here", f"{_EXAMPLES['tumble']} or {_EXAMPLES['hop']}"
        )
    if len(node.expressions) != _ARGUMENTS[function]:
        raise refused(node, written(node), f"{function} takes {_ARGUMENTS[function]} arguments", _EXAMPLES[function])
    lengths = [interval_us(argument) for argument in node.expressions[1:]]
    for length in lengths:
        if length <= 0:
            raise refused(node, written(node), "a window must be longer than nothing", _EXAMPLES[function])
    window = _window(node, function, lengths)
    _check_time(node, writer, window)
    return Grouped(window, node)


def _window(node: exp.Expr, function: str, lengths: list[int]) -> Window:
    if function == "tumble":
        return Tumble(lengths[0])
    if function == "session_window":
        return Session(lengths[0])
    size, slide = lengths
    if slide > size:
        raise refused(node, written(node), "the slide is greater than the size, so rows would fall between windows",
                      "hop(ts, size, slide) with slide ≤ size")  # fmt: skip
    return Tumble(size) if size == slide else Hop(size, slide)


def _check_time(node: exp.Anonymous, writer: Writer, window: Window) -> None:
    """A window stands on the event time, which is what the watermark is about."""
    roles = writer.scope.relation.roles
    column = writer.column(node.expressions[0])
    if column is not None and column == roles.time:
        return
    if column is not None and column == roles.start and _within(window, roles):
        return
    if column is not None and column in {roles.start, roles.end}:
        raise refused(
            node, written(node), "a window of windows stands on window_time, the last moment of the inner window: by its"
            " start or end it could fall into another outer window", f"{node.this}(window_time, …)",
        )  # fmt: skip
    time = roles.time or ("window_time" if roles.end else None)
    raise refused(
        node, written(node), "a window stands on the event time, which alone says when it is over",
        f"{node.this}({time}, …)" if time else ".with_watermark(column, delay=…) on the source, and the column in every query between",
    )  # fmt: skip


def _within(window: Window, roles: Roles) -> bool:
    """Whether an inner window always lies in the same outer windows by its start as by its last moment."""
    if isinstance(window, Session) or roles.size_us is None or roles.size_us != roles.slide_us:
        return False
    lengths = [window.size_us, window.slide_us if isinstance(window, Hop) else window.size_us]
    return all(length % roles.size_us == 0 for length in lengths)
