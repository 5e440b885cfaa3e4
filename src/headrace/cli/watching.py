"""Screens that are drawn again and again, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from headrace.cli import output as out

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

S = TypeVar("S")


def watch(every: float, sample: Callable[[], S], screen: Callable[[S, S], RenderableType]) -> None:
    """Until Ctrl-C, which may come at any moment: the terminal is given back in every case.

    Args:
        every: seconds between two looks.
        sample: a look.
        screen: what is shown of two looks, the last two.
    """
    from rich.live import Live  # noqa: PLC0415 - only on a terminal

    live = Live(console=out.make_console(), screen=True, auto_refresh=False)
    try:
        live.start()
        _follow(every, sample, screen, live)
    except KeyboardInterrupt:
        return
    finally:
        live.stop()


def _follow(every: float, sample: Callable[[], S], screen: Callable[[S, S], RenderableType], live: Live) -> None:
    from headrace.errors import OutcomeUnknown, Unavailable  # noqa: PLC0415 - help needs no client

    before = sample()
    live.update(screen(before, before), refresh=True)
    while True:
        time.sleep(every)
        try:
            now = sample()
        except (Unavailable, OutcomeUnknown) as error:
            live.update(_message(str(error)), refresh=True)
            continue
        live.update(screen(before, now), refresh=True)
        before = now


def _message(text: str) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415

    return Text(f"{text}\nTrying again …", style="red")
