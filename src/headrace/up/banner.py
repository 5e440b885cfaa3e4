"""What a person at the terminal sees once everything runs: where to go, and what to press."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from headrace.up.child import Child, State

if TYPE_CHECKING:
    from headrace.up.supervisor import Supervisor


def greet(supervisor: Supervisor) -> None:
    click.echo("\n".join(banner(list(supervisor.children.values()), colour=not os.environ.get("NO_COLOR"))))


def banner(children: list[Child], *, colour: bool) -> list[str]:
    """A line a service: its name, where it is, what it runs."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if colour else ("", "")
    width = max(len(child.service.name) for child in children)
    lines = [f"  {child.service.name:<{width}}  {bold}{_where(child)}{plain}{_what(child)}" for child in children]
    end = "  Ctrl-C stops in order; nothing that was accepted is lost. HUP reads headrace.toml anew."
    return ["", f"  {bold}headrace{plain} is up", *lines, end, ""]


def _where(child: Child) -> str:
    if child.state is not State.READY:
        return f"{child.state.value}: see the log"
    settings: Any = child.service.settings
    if child.url or not hasattr(settings, "port"):
        return child.url
    return f"http://{settings.host}:{settings.port}" if settings.port else "a free port, see the log"


def _what(child: Child) -> str:
    settings: Any = child.service.settings
    found = ""
    match child.service.section:
        case "broker":
            found = f"SQS, data in {settings.data}"
        case "web" | "worker":
            found = settings.app
        case "stream":
            found = settings.file
    return f"  {found}" if found and _where(child) else found
