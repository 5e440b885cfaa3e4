"""`headrace serve`: run the web server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from headrace import logs
from headrace.cli.setting_options import setting_options
from headrace.errors import HeadraceError
from headrace.settings import Resolved, SettingsError, resolve
from headrace.web.settings import WebSettings

if TYPE_CHECKING:
    from headrace.web.server.stats_aggregator import Ready

SECTION: Final = "web"

_SHORT: Final = {
    "workers": ("-w",),
    "certfile": ("--ssl-certfile",),
    "keyfile": ("--ssl-keyfile",),
    "trusted_proxies": ("--forwarded-allow-ips",),
    "max_requests": ("--limit-max-requests",),
    "drain": ("--graceful-timeout", "--timeout-graceful-shutdown"),
    "keep_alive": ("--timeout-keep-alive",),
    "request_timeout": ("--timeout", "-t"),
    "app_dir": ("--chdir",),
}
"""The names that gunicorn and uvicorn use, where they mean the same."""


@click.command()
@click.argument("app", metavar="[APP|FOLDER]", required=False)
@setting_options(WebSettings, SECTION, without=("app",), short=_SHORT)
@click.option(
    "-b", "--bind", metavar="HOST:PORT|unix:PATH", hidden=True, help="gunicorn's name of --host, --port and --uds."
)
@click.option("--factory", is_flag=True, hidden=True, help="uvicorn's: APP is called to get the app.")
@click.option("-k", "--worker-class", hidden=True, help="gunicorn's: not needed.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def serve(
    config: Path | None,
    bind: str | None,
    factory: bool,
    worker_class: str | None,
    **flags: Any,
) -> int:
    """Serve a WSGI or ASGI app, a folder, or other servers.

    \b
      headrace serve shop.main:app                  Flask, Django, FastAPI, …: it finds out by itself
      headrace serve shop.main:create_app()         a factory
      headrace serve ./public                       static files
      headrace serve --proxy http://127.0.0.1:3000  a reverse proxy

    Every option can also be set in the environment (the name in brackets) or in headrace.toml, table [web]; there,
    [[web.routes]] say which app, folder or server answers which host and path. Flags win over the environment, the
    environment over the file.

    TERM or Ctrl-C stops in order: what has come is answered. HUP loads new code, settings and certificates without a
    failed request; if they cannot be used, the old ones go on. Exit codes: 0 stopped, 1 failed, 2 set wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    flags |= _translate(bind, flags)
    if factory and flags.get("app") and not flags["app"].endswith(")"):
        flags["app"] += "()"
    read = _reader(config, flags)
    try:
        found = read()
        settings = found.settings
        logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)
        if worker_class:
            click.echo(f"-k {worker_class} is not needed: what the app speaks is found out", err=True)
        from headrace.web.check import check  # noqa: PLC0415 - help and completion need no server
        from headrace.web.server.supervisor import run_web  # noqa: PLC0415

        check(settings, found.origins)
        greet = _greeter(settings) if sys.stdout.isatty() else _say_nothing
        return run_web(settings, reread=lambda: _checked(read()), on_ready=greet)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None


def _translate(bind: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """`--bind HOST:PORT` and `--bind unix:PATH`, as gunicorn has them."""
    if bind is None:
        return {}
    if flags.get("host") or flags.get("port") or flags.get("uds"):
        raise click.UsageError("--bind says host and port already: leave --host, --port and --uds out")
    if bind.startswith("unix:"):
        return {"uds": bind.removeprefix("unix:")}
    host, colon, port = bind.rpartition(":")
    return {"host": host.strip("[]") or "0.0.0.0", "port": port} if colon else {"host": bind}  # noqa: S104 - gunicorn's


def _reader(config: Path | None, flags: dict[str, Any]) -> Callable[[], Resolved[WebSettings]]:
    folder = Path.cwd()
    return lambda: resolve(WebSettings, SECTION, flags=flags, environ=os.environ, folder=folder, config=config)


def _checked(found: Resolved[WebSettings]) -> WebSettings:
    from headrace.web.check import check  # noqa: PLC0415 - as in serve

    check(found.settings, found.origins)
    return found.settings


def _say_nothing(_: Ready) -> None:
    """Nobody reads: the log line is enough."""


def _greeter(settings: WebSettings) -> Callable[[Ready], None]:
    bold, plain = ("\x1b[1m", "\x1b[0m") if not os.environ.get("NO_COLOR") else ("", "")

    def greet(ready: Ready) -> None:
        what = settings.app or ", ".join(settings.proxy) or "the routes of the settings file"
        how = f" ({ready.interface.upper()})" if ready.interface else ""
        lines = ["", f"  {bold}headrace{plain} serves {what}{how} at {bold}{ready.url}{plain}"]
        if ready.workers:
            threads = f", {settings.threads} threads each" if "wsgi" in ready.interface else ""
            lines.append(f"  workers           {ready.workers}{threads}")
        if ready.admin:
            lines.append(f"  metrics           {ready.admin}/metrics")
        if settings.reload:
            lines.append("  reload            whenever a source file changes")
        click.echo("\n".join([*lines, "  Ctrl-C stops; what has come is answered.", ""]))

    return greet
