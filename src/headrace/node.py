"""A broker as a process: store, broker, services and listeners put together, from start to exit.

The node decides nothing about messages. It owns the order of things:

    start   settings checked → folder → store (takes the lock) → broker → listeners → ready
    stop    not ready → stop accepting → long polls answered empty → answers finished → commits, checkpoint → exit

Signals: TERM and INT stop so; a second INT ends at once. HUP reads keys and certificates anew. A store that has failed
stops the node with exit code 1: what it answered is on the disk, and nobody knows what a further write would do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import uvloop

from headrace._version import __version__
from headrace.broker_about import about, without_password
from headrace.broker_settings import BrokerSettings, check, request_bytes_max, stores_of
from headrace.broker_showing import show
from headrace.certificates import listener_tls
from headrace.clock import Clock
from headrace.errors import StoreFailed, StoreUnusable
from headrace.front import Front, Health, MetricsPage, error_body, native_authorize
from headrace.http.guard import ANY
from headrace.http.limits import Limits
from headrace.http.listener import AddressUnusable, Listener, Statistics
from headrace.http.tls import renew
from headrace.native.protocol import BrokerAbout
from headrace.native.server import NativeService, allow_all
from headrace.process import (
    collect_seldom,
    notify_systemd,
    prepare_folder,
    raise_descriptor_limit,
    shorten_switch_interval,
)
from headrace.queue.broker import Broker
from headrace.queue.store import signpost
from headrace.queue.store.base import Store
from headrace.queue.store.divided import DividedStore, Part
from headrace.queue.store.sqlite import open_store
from headrace.sqs.context import Context, SqsOptions
from headrace.sqs.keys import KeysUnusable, load_keys
from headrace.sqs.service import SqsService
from headrace.sqs.signature import Verifier

log = logging.getLogger("headrace.node")

SOCKET_NAME: Final = "headrace.sock"
EXIT_WITHIN_S: Final = 14.5  # of TERM; supervisors' grace is 15 s and more, and what was answered is on the disk
FAILED_GRACE_S: Final = 2.0  # to answer with errors once the store has failed
ARRIVING_S: Final = 0.2  # for requests on their way while we stop accepting: served, not refused

StoreOpener = Callable[[BrokerSettings], tuple[Store, Clock]]


def open_configured(settings: BrokerSettings) -> tuple[Store, Clock]:
    """The store that a broker runs on. The folder is there in any case: for the Unix socket."""
    prepare_folder(settings.data)
    if settings.store is None:
        return open_store(settings.data, cooldowns=settings.cooldowns)
    store, clock = open_postgres(settings.store, cooldowns=settings.cooldowns)
    _leave_signpost(settings.data, without_password(settings.store))
    parts = [
        Part(pattern, without_password(url), open_postgres(url, cooldowns=settings.cooldowns)[0])
        for pattern, url in stores_of(settings)
    ]
    if not parts:
        return store, clock
    return DividedStore([*parts, Part("*", without_password(settings.store), store)]), clock


def _leave_signpost(folder: Path, place: str) -> None:
    """Nobody is to open a store in the folder while this broker is away; and one that is there is told of."""
    if (folder / "headrace.db").exists():
        facts = {"action": "broker.folder_unused", "data": str(folder)}
        log.warning("the store in %s is not used: this broker's is %s", folder, place, extra=facts)
    try:
        signpost.put(folder, place)
    except OSError as error:
        raise StoreUnusable(str(folder), error.strerror or str(error)) from error


def open_postgres(url: str, *, cooldowns: bool) -> tuple[Store, Clock]:
    """Raises StoreUnusable, also if the extra is not installed."""
    try:
        from headrace.queue.store.postgres.opening import open_store as open_database  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise StoreUnusable(without_password(url), "install the extra: pip install 'headrace[postgres]'") from None
    return open_database(url, cooldowns=cooldowns)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node listens. `socket` is None where the path is too long for a Unix socket."""

    host: str
    port: int
    secure: bool
    socket: Path | None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


class Node:
    """One broker process, on one loop. `start`, then `run` until stopped; `run` returns the exit code."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        opener: StoreOpener = open_configured,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        """Read what can be wrong without touching the store.

        Args:
            settings: checked here.
            opener: opens the store; tests give one that fails.
            origins: setting → where its value was written; for who looks at the settings.

        Raises:
            SettingsError: the combination is unsafe, or a certificate cannot be used.
            KeysUnusable: the keys file cannot be used.
        """
        check(settings)
        self.health = Health.STARTING
        self._settings = settings
        self._opener = opener
        self._origins = origins or {}
        self._started_ms = time.time_ns() // 1_000_000
        self._verifier = Verifier(load_keys(settings.keys), time.time) if settings.keys else None
        self._tls = listener_tls(settings.certfile, settings.keyfile)
        self._stop = asyncio.Event()
        self._failure: StoreFailed | None = None
        self._shown: asyncio.Task[NoReturn] | None = None

    async def start(self) -> Endpoint:
        """Open everything; ready when it returns.

        Raises:
            StoreUnusable, StoreDamaged: the folder cannot be opened.
            AddressUnusable: host and port, or the socket, are taken.
        """
        store, clock = self._opener(self._settings)
        self._broker = Broker(store, clock)
        self._broker.on_failure = self._fail
        try:
            await self._broker.start()
            self._listener = self._listen(clock)
            endpoint = self._open_addresses()
        except BaseException:
            await self._broker.stop()
            raise
        self.health = Health.READY
        if store.shared:
            self._shown = asyncio.create_task(show(self._broker, self._http_statistics, endpoint.url))
        notify_systemd("READY=1")
        facts = {"action": "broker.ready", "url": endpoint.url, "data": str(self._settings.data)}
        log.info("ready at %s", endpoint.url, extra={**facts, "version": __version__, "pid": os.getpid()})
        return endpoint

    def _health_now(self) -> Health:
        if self.health is not Health.READY:
            return self.health
        store = self._broker.store
        if store.away() is not None:
            return Health.AWAY
        return Health.FULL if store.statistics().full else Health.READY

    def _about(self) -> BrokerAbout:
        return about(self._settings, self._origins, started_ms=self._started_ms)

    async def run(self) -> int:
        """Serve until stopped, then stop in order. Returns the exit code: 0, or 1 if the store failed."""
        await self._stop.wait()
        # Whatever hangs from here on (a disk, a client): the process ends in time.
        watchdog = threading.Timer(EXIT_WITHIN_S, _end_now)
        watchdog.daemon = True
        watchdog.start()
        await self._drain()
        watchdog.cancel()
        return 0 if self._failure is None else 1

    def stop(self) -> None:
        """Ask `run` to stop. Idempotent."""
        if not self._stop.is_set():
            self.health = Health.DRAINING if self._failure is None else Health.FAILED
            notify_systemd("STOPPING=1")
            self._stop.set()

    def reload(self) -> None:
        """Read keys and certificates anew; if they cannot be used, the old ones stay and an error is logged."""
        settings = self._settings
        try:
            if self._verifier is not None and settings.keys is not None:
                self._verifier.replace(load_keys(settings.keys))
            if self._tls is not None and settings.certfile is not None:
                renew(self._tls, settings.certfile, settings.keyfile)
        except (KeysUnusable, OSError) as error:
            log.error("not reloaded: %s", error, extra={"action": "broker.reload_failed"})
        else:
            log.info("keys and certificates reloaded", extra={"action": "broker.reloaded"})

    # --- putting it together ---

    def _listen(self, clock: Clock) -> Listener:
        settings, verifier, broker = self._settings, self._verifier, self._broker
        options = SqsOptions(verifier=verifier, behind_proxy=settings.behind_proxy, queue_urls=settings.queue_urls)
        authorize = native_authorize(verifier) if verifier is not None else allow_all
        page = MetricsPage(
            broker,
            clock,
            http=self._http_statistics,
            audience=settings.metrics,
            behind_proxy=settings.behind_proxy,
        )
        front = Front(
            sqs=SqsService(broker, clock, options=options).handle,
            native=NativeService(broker, clock, authorize=authorize, about=self._about).handle,
            metrics_page=page.handle,
            health=self._health_now,
            context=Context.of(broker, clock, options),
            allowed_hosts=frozenset({ANY}) if verifier is not None else _allowed_hosts(settings),
        )
        limits = Limits(connections_max=settings.connections_max, body_bytes=request_bytes_max(settings))
        return Listener(front, limits=limits, error_body=error_body, tls=self._tls)

    def _http_statistics(self) -> Statistics:
        return self._listener.statistics()

    def _open_addresses(self) -> Endpoint:
        settings = self._settings
        port = self._listener.open_tcp(settings.host, settings.port)
        return Endpoint(settings.host, port, self._tls is not None, self._open_socket())

    def _open_socket(self) -> Path | None:
        """The Unix socket in the data folder, under the shorter of its names: the system takes about 100 bytes."""
        path = self._settings.data.absolute() / SOCKET_NAME
        short = min(path, Path(os.path.relpath(path)), key=lambda p: len(os.fsencode(p)))
        try:
            self._listener.open_unix(short)
        except AddressUnusable as error:
            log.warning("no Unix socket: %s", error, extra={"action": "broker.no_socket"})
            return None
        return path

    # --- the end ---

    def _fail(self, failure: StoreFailed) -> None:
        log.critical("%s", failure, extra={"action": "broker.store_failed"})
        self._failure = failure
        self.stop()

    async def _drain(self) -> None:
        settings = self._settings
        log.info("stopping", extra={"action": "broker.stopping"})
        grace_s = float(settings.drain) if self._failure is None else min(settings.drain, FAILED_GRACE_S)
        closing = asyncio.create_task(self._listener.close(grace_s))
        await asyncio.wait({closing}, timeout=min(ARRIVING_S, grace_s))
        self._broker.drain()
        await closing
        if self._shown is not None:
            self._shown.cancel()
        await self._broker.stop()
        log.info("stopped", extra={"action": "broker.stopped"})


def run_broker(
    settings: BrokerSettings,
    *,
    on_ready: Callable[[Endpoint], None] = lambda _: None,
    origins: Mapping[str, str] | None = None,
) -> int:
    """Run a broker until it is told to stop. Returns the exit code: 0 stopped, 1 the store failed.

    Args:
        settings: as resolved.
        on_ready: called once, when requests are served.
        origins: as Node.

    Raises:
        SettingsError, KeysUnusable: it cannot run as it is set.
        StoreUnusable, StoreDamaged, AddressUnusable: it cannot start here and now.
    """
    raise_descriptor_limit()
    shorten_switch_interval()
    collect_seldom()
    return uvloop.run(_run(settings, on_ready, origins))


async def _run(
    settings: BrokerSettings, on_ready: Callable[[Endpoint], None], origins: Mapping[str, str] | None
) -> int:
    node = Node(settings, origins=origins)
    _obey_signals(node)
    on_ready(await node.start())
    return await node.run()


def _obey_signals(node: Node) -> None:
    loop = asyncio.get_running_loop()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            _end_now()
        interrupted = True
        node.stop()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, node.stop)
    loop.add_signal_handler(signal.SIGHUP, node.reload)


def _end_now() -> None:
    """End as a crash would: what was answered is on the disk, and the next start recovers the rest."""
    with suppress(Exception):
        log.warning("ended at once", extra={"action": "broker.ended"})
    os._exit(1)


def _allowed_hosts(settings: BrokerSettings) -> frozenset[str]:
    return frozenset(host.lower().rstrip(".") for host in settings.allow_host)
