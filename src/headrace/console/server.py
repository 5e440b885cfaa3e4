"""The console as a process: client, sampler, site and listener put together, from start to exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

import uvloop

from headrace._version import __version__
from headrace.certificates import listener_tls
from headrace.console import limits, responses
from headrace.console.access import Attempts, UsersUnusable, Visitors, load_users
from headrace.console.authenticator import Authenticator
from headrace.console.live import Live
from headrace.console.notices import Notices
from headrace.console.page import PageContext
from headrace.console.sampling import Sampler
from headrace.console.site import Site
from headrace.console_settings import ConsoleSettings, broker_url, check
from headrace.http.exchange import Exchange
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.problem import error_body
from headrace.http.tls import renew
from headrace.native.aio import AsyncClient, connect_async
from headrace.native.presence import be_present
from headrace.presence import about_me, holder_name
from headrace.process import notify_systemd, raise_descriptor_limit, rss_bytes

_log: Final = logging.getLogger("headrace.console")

DRAIN_S: Final = 2.0
"""For answers on their way; what is watched is ended at once, and browsers come back."""


class Console:
    """One console, on one loop. `start`, then `run` until stopped. It keeps running while its broker is away."""

    def __init__(self, settings: ConsoleSettings, *, key: tuple[str, str] | None = None) -> None:
        """Read what can be wrong without the network.

        Args:
            key: access key and secret key of an operator, for a broker that has keys.

        Raises:
            SettingsError: the combination is unsafe, or a certificate cannot be used.
            UsersUnusable: the users file cannot be used.
            InvalidParameter: the broker's URL is none.
        """
        check(settings)
        self._settings = settings
        self._users = load_users(settings.users) if settings.users is not None else {}
        self._tls = listener_tls(settings.certfile, settings.keyfile)
        self._client: AsyncClient = connect_async(
            broker_url(settings), timeout=limits.BROKER_TIMEOUT_S, patience=0, key=key
        )
        self._stop = asyncio.Event()

    async def start(self) -> str:
        """Open everything; returns the console's URL. A broker that is away is shown, and no error.

        Raises: AddressUnusable.
        """
        settings = self._settings
        await self._client.open()
        self._live = Live(time.monotonic)
        self._sampler = Sampler(self._client, on_look=self._on_look)
        self._refreshing: set[asyncio.Task[None]] = set()
        self._listener = Listener(
            target=self._target,
            limits=Limits(body_bytes=limits.FORM_BYTES_MAX),
            error_body=error_body,
            error_fields=responses.ALWAYS,
            tls=self._tls,
        )
        port = self._listener.open_tcp(settings.host, settings.port)
        self._site = self._make_site(port)
        await self._sampler.sample()
        self._sampling = asyncio.create_task(self._sampler.run())
        self._sampling.add_done_callback(self._on_sampler_end)
        url = self._url(port)
        self._presence = asyncio.create_task(self._be_present())
        notify_systemd("READY=1")
        facts = {"action": "console.ready", "url": url, "broker": settings.broker, "version": __version__}
        _log.info("ready at %s", url, extra={**facts, "pid": os.getpid()})
        return url

    async def run(self) -> int:
        """Serve until stopped, then stop in order. Returns the exit code: 0, or 1 if the sampler broke."""
        await self._stop.wait()
        notify_systemd("STOPPING=1")
        failed = self._sampling.done()
        await self.close()
        _log.info("stopped", extra={"action": "console.stopped"})
        return 1 if failed else 0

    def stop(self) -> None:
        """Ask `run` to stop. Idempotent."""
        self._stop.set()

    def reload(self) -> None:
        """Read users and certificates anew; if they cannot be used, the old ones stay and an error is logged. Who is no user
        any more, or has another password, is signed out."""
        settings = self._settings
        try:
            users = load_users(settings.users) if settings.users is not None else {}
            if self._tls is not None and settings.certfile is not None:
                renew(self._tls, settings.certfile, settings.keyfile)
        except (UsersUnusable, OSError) as error:
            _log.error("not reloaded: %s", error, extra={"action": "console.reload_failed"})
        else:
            passwords = {name: user.password for name, user in users.items()}
            self._visitors.sign_out_all(
                [name for name, user in self._users.items() if passwords.get(name) != user.password]
            )
            self._users.clear()
            self._users.update(users)
            _log.info("users and certificates reloaded", extra={"action": "console.reloaded"})

    async def close(self) -> None:
        """End streams, answer what has come, close. For those who do not `run`."""
        self._sampling.cancel()
        self._presence.cancel()
        await asyncio.gather(self._sampling, self._presence, return_exceptions=True)
        self._live.close()
        await self._listener.close(DRAIN_S)
        await self._client.close()

    def _make_site(self, port: int) -> Site:
        context = PageContext(
            self._client,
            self._settings,
            self._sampler.history,
            Notices(),
            snapshot=lambda: self._sampler.snapshot,
            now_s=time.time,
        )
        self._visitors = Visitors(time.monotonic, session_s=float(self._settings.session))
        secure = self._tls is not None or self._settings.behind_proxy
        authenticator = Authenticator(
            self._visitors, Attempts(time.monotonic), self._users, self._settings, secure=secure, port=port
        )
        return Site(context, self._live, authenticator)

    def _target(self, exchange: Exchange) -> None:
        self._site(exchange)  # made after the listener, which tells it its port

    async def _be_present(self) -> None:
        """Those who list who is there see us, too."""
        await be_present(
            self._client,
            holder=holder_name("console"),
            kind="console",
            facts=lambda: {**about_me(), "rss_bytes": rss_bytes()},
        )

    def _on_look(self) -> None:
        if self._live.viewers:
            task = asyncio.get_running_loop().create_task(self._live.refresh())
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    def _on_sampler_end(self, task: asyncio.Task[None]) -> None:
        """It ends when we do; else by a bug, and a console that stands still must not look alive."""
        if not task.cancelled():
            _log.critical("the sampler failed", exc_info=task.exception(), extra={"action": "console.sampler_failed"})
            self.stop()

    def _url(self, port: int) -> str:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{'https' if self._tls is not None else 'http'}://{host}:{port}"


def run_console(
    settings: ConsoleSettings, *, key: tuple[str, str] | None = None, on_ready: Callable[[str], None] = lambda _: None
) -> int:
    """Run a console until TERM or INT. Returns the exit code.

    Args:
        key: as Console.
        on_ready: called once with the URL.

    Raises: SettingsError, UsersUnusable, InvalidParameter, AddressUnusable.
    """
    raise_descriptor_limit()
    return uvloop.run(_run(settings, key, on_ready))


async def _run(settings: ConsoleSettings, key: tuple[str, str] | None, on_ready: Callable[[str], None]) -> int:
    console = Console(settings, key=key)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, console.stop)
    loop.add_signal_handler(signal.SIGHUP, console.reload)
    on_ready(await console.start())
    return await console.run()
