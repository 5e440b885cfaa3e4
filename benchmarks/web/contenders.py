"""The servers that are compared, with two workers each and without access logs; else as they are by default."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.web.plan import WORKERS

Interface = Literal["wsgi", "asgi"]

HERE: Final = Path(__file__).parent
APPS: Final = HERE / "apps"
GTHREADS: Final = 8
"""Threads of a gunicorn worker: as many as headrace has by default."""


@dataclass(frozen=True)
class App:
    """An application, and what it is called in tables."""

    title: str
    interface: Interface
    spec: str
    path: str = "/"


SPEED_APPS: Final = (
    App("WSGI, plain", "wsgi", "hello:wsgi"),
    App("ASGI, plain", "asgi", "hello:asgi"),
    App("Flask", "wsgi", "flask_app:app"),
    App("Django", "wsgi", "django_app:app"),
    App("FastAPI", "asgi", "fastapi_app:app"),
)
TROUBLE_APPS: Final = (App("WSGI", "wsgi", "hello:burning_wsgi", "/0"), App("ASGI", "asgi", "hello:burning_asgi", "/0"))

Command = Callable[[Path, str, int], list[str]]
"""From (folder of the environment's programs, app spec, port) to a command line."""


@dataclass(frozen=True)
class Contender:
    """A server.

    Attributes:
        name: as the tables show it; headrace's begin with "headrace".
        interfaces: what it runs.
        command: starts it on a port of 127.0.0.1.
        front: nginx in front of it.
    """

    name: str
    interfaces: tuple[Interface, ...]
    command: Command
    front: bool = False

    @property
    def ours(self) -> bool:
        return self.name.startswith("headrace")


def _headrace(*flags: str) -> Command:
    return lambda programs, spec, port: [
        str(programs / "headrace"), "serve", spec, "--port", str(port),
        "--workers", str(WORKERS), "--access-log", "off", "--log-level", "warning", *flags,
    ]  # fmt: skip


def _gunicorn(*flags: str) -> Command:
    return lambda programs, spec, port: [
        str(programs / "gunicorn"), spec, "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS),
        "--log-level", "warning", *flags,
    ]  # fmt: skip


def _uvicorn(programs: Path, spec: str, port: int) -> list[str]:
    return [
        str(programs / "uvicorn"), spec, "--port", str(port), "--workers", str(WORKERS),
        "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip


def _granian(interface: Interface) -> Command:
    return lambda programs, spec, port: [
        str(programs / "granian"), spec, "--interface", interface, "--port", str(port),
        "--workers", str(WORKERS), "--log-level", "warning",
    ]  # fmt: skip


def _hypercorn(programs: Path, spec: str, port: int) -> list[str]:
    return [
        str(programs / "hypercorn"), spec, "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS),
        "--worker-class", "uvloop", "--log-level", "warning",
    ]  # fmt: skip


_THREADS: Final = ("--worker-class", "gthread", "--threads", str(GTHREADS))

CONTENDERS: Final = (
    Contender("headrace", ("wsgi", "asgi"), _headrace()),
    Contender("headrace --direct", ("wsgi", "asgi"), _headrace("--direct")),
    Contender("granian WSGI", ("wsgi",), _granian("wsgi")),
    Contender("gunicorn gthread", ("wsgi",), _gunicorn(*_THREADS)),
    Contender("nginx + gunicorn gthread", ("wsgi",), _gunicorn(*_THREADS), front=True),
    Contender("uvicorn", ("asgi",), _uvicorn),
    Contender("granian ASGI", ("asgi",), _granian("asgi")),
    Contender("gunicorn asgi", ("asgi",), _gunicorn("--worker-class", "asgi")),
    Contender("hypercorn", ("asgi",), _hypercorn),
    Contender("nginx + uvicorn", ("asgi",), _uvicorn, front=True),
)


def contenders(interface: Interface, *, peers: bool) -> list[Contender]:
    """Who runs apps of this interface here: without nginx, none that need it; without `peers`, headrace alone."""
    return [
        each
        for each in CONTENDERS
        if interface in each.interfaces and (each.ours or peers) and (not each.front or shutil.which("nginx"))
    ]
