"""Boxes and arrows as an SVG: layers from left to right, each box close to what reads it."""

from __future__ import annotations

import html
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH, LINE, GAP_X, GAP_Y, PAD = 220, 16, 60, 24, 16  # pixels
_TEXT_CHARACTERS: Final = 32  # of a line of text in a box, at 12 px
_TEXT_LINES: Final = 4

_STYLE: Final = """
  .plan .box { fill: #f4f7fa; stroke: #6b7c8f } .plan .state { fill: #e3effb; stroke: #2f6db3; stroke-width: 1.5 }
  .plan .arrow { stroke: #6b7c8f; fill: none } .plan .head { fill: #6b7c8f }
  .plan text { font: 12px sans-serif; fill: #1c2733 } .plan .title { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .plan .box { fill: #1f2933; stroke: #7b8b9c } .plan .state { fill: #17314d; stroke: #5b9be0 }
    .plan .arrow { stroke: #9aa8b6 } .plan .head { fill: #9aa8b6 } .plan text { fill: #e4e9ee }
  }
"""
# All under .plan: in a notebook the picture is part of the page, where other pictures have texts and boxes, too.


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its title, what it does, the places of the boxes in front of it, whether it has state."""

    title: str
    text: str
    inputs: tuple[int, ...]
    state: bool = False

    def lines(self) -> list[str]:
        wrapped = textwrap.wrap(self.text, _TEXT_CHARACTERS, break_long_words=True)
        return (
            wrapped
            if len(wrapped) <= _TEXT_LINES
            else [*wrapped[: _TEXT_LINES - 1], wrapped[_TEXT_LINES - 1][:-1] + "…"]
        )

    @property
    def height(self) -> int:
        return PAD + LINE * (1 + len(self.lines()))


@dataclass(frozen=True, slots=True)
class Placed:
    """A box at its place: the upper left corner."""

    box: Box
    x: int
    y: int

    @property
    def middle(self) -> int:
        return self.y + self.box.height // 2


def draw(boxes: Sequence[Box], title: str, *, style: str = _STYLE) -> str:
    """The SVG of boxes, each of which stands behind its inputs in the list.

    Args:
        style: CSS for `.plan`; empty where the page around has its own.
    """
    placed = place(boxes)
    width = max((item.x for item in placed), default=0) + WIDTH + PAD
    height = max((item.y + item.box.height for item in placed), default=0) + PAD
    arrows = [_arrow(placed[below], item) for item in placed for below in item.box.inputs]
    return (
        f'<svg class="plan" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{html.escape(title)}</title>{f'<style>{style}</style>' if style else ''}"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(arrows)}{''.join(_box(item) for item in placed)}</svg>\n"
    )


def place(boxes: Sequence[Box]) -> list[Placed]:
    """Where each box stands: no two of a layer overlap, and each is right of its inputs."""
    layers = _layers(boxes)
    bottom: dict[int, int] = defaultdict(lambda: PAD)
    placed = []
    for box, layer in zip(boxes, layers, strict=True):
        placed.append(Placed(box, PAD + layer * (WIDTH + GAP_X), bottom[layer]))
        bottom[layer] += box.height + GAP_Y
    return placed


def _layers(boxes: Sequence[Box]) -> list[int]:
    """Which layer each box is in: right of its inputs, and as near as it can be to what reads it, so that no arrow has to
    pass behind boxes for want of a better place."""
    layers: list[int] = []
    for box in boxes:
        layers.append(1 + max((layers[below] for below in box.inputs), default=-1))
    nearest = [max(layers, default=0)] * len(boxes)
    for number in reversed(range(len(boxes))):
        if any(number in box.inputs for box in boxes):
            layers[number] = nearest[number] - 1
        for below in boxes[number].inputs:
            nearest[below] = min(nearest[below], layers[number])
    return layers


def _box(item: Placed) -> str:
    kind = "state" if item.box.state else "box"
    x, y = item.x + 10, item.y + PAD // 2
    lines = [f'<text class="title" x="{x}" y="{y + 12}">{html.escape(item.box.title)}</text>']
    lines += [
        f'<text x="{x}" y="{y + 12 + LINE * number}">{html.escape(line)}</text>'
        for number, line in enumerate(item.box.lines(), 1)
    ]
    rectangle = f'<rect class="{kind}" x="{item.x}" y="{item.y}" width="{WIDTH}" height="{item.box.height}" rx="6"/>'
    return f"<g>{rectangle}{''.join(lines)}</g>"


def _arrow(start: Placed, end: Placed) -> str:
    x1, x2 = start.x + WIDTH, end.x
    bend = (x1 + x2) // 2
    path = f"M{x1} {start.middle}C{bend} {start.middle} {bend} {end.middle} {x2} {end.middle}"
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'
