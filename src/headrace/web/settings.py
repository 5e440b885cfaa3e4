"""The settings of `headrace serve`: the section `web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from headrace.settings import Duration, Size, setting

METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")
"""What a durable rule covers unless it names others."""
Port = Annotated[int, setting("TCP port; 0 picks a free port and logs it.", ge=0, le=65_535)]


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[web.routes]]`: what answers the requests of a host and path. The most specific route wins: an exact host before
    `*.host` before any host, then the longest path."""

    path: str = "/"
    """Prefix, at a slash: `/api` matches `/api` and `/api/x`, not `/apis`."""
    host: str = ""
    """Without port; `*.example.org` for all below it; empty for any."""
    app: str = ""
    """`module:app`. One of app, static, proxy."""
    static: Annotated[str, setting("A folder, relative to the file.", relative=True)] = ""
    proxy: tuple[str, ...] = ()
    """Upstream servers, `http://host:port`."""
    strip: bool = False
    """Strip the path before passing the request on (SCRIPT_NAME, root_path; for a proxy: not sent). Folders: always."""
    priority: int = 1
    """Priority in the queue: 0 first, 1 normal, 2 last."""
    cache_control: str = ""
    """static: the header. Empty: revalidate always (`no-cache`)."""
    index: bool = False
    """static: list folders that have no index.html."""
    concurrency: int = 64
    """proxy: maximum of concurrent requests per upstream."""
    health_path: str = ""
    """proxy: path of active health checks, every `health_interval`; empty: only requests show the health."""
    health_interval: float = 5.0
    connect_timeout: float = 3.0
    read_timeout: float = 60.0
    """proxy: seconds until the head of the response, and between two chunks."""
    preserve_host: bool = True
    """proxy: send the client's Host, not the upstream's."""


class DurableSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[web.durable]]`: requests that are committed to the broker before 202."""

    path: str
    methods: tuple[str, ...] = METHODS
    always: bool = True
    """False: only with `Prefer: respond-async`."""
    attempts_max: int = 5
    retry_s: float = 1.0
    """Before the second attempt; doubles up to 15 minutes."""
    keep_s: float = 86_400.0
    """How long the result, and the Idempotency-Key, are kept."""
    key_required: bool = False
    """Without Idempotency-Key: 400."""


RESPOND_ASYNC_RULE: Final = DurableSettings(path="/", methods=("GET", "HEAD", *METHODS), always=False)
"""Covers any request whose client asks for it; all other rules precede it."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[web.limits]]`: a token bucket for each client. Each edge (with --direct: each worker) counts on its own."""

    rate: str
    """`100/s`, `600/m`, `5000/h`."""
    burst: int = 0
    """Maximum of tokens; 0: those of one second, at least 1."""
    by: str = "address"
    """`address`, or `header:X-Api-Key`; requests without the header are counted by address."""
    path: str = "/"
    name: str = "default"
    """In the RateLimit headers."""


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `web`."""

    app: Annotated[str, setting("module:app, module:factory(), or a folder; the command's argument.")] = ""
    host: Annotated[str, setting("Address to listen on.")] = "127.0.0.1"
    port: Port = 8000
    uds: Annotated[Path | None, setting("Unix socket to listen on instead of host and port.")] = None
    workers: Annotated[int, setting("Worker processes; 0: one per usable core, at most 8.", ge=0, le=512)] = 0
    threads: Annotated[int, setting("WSGI: threads per worker; each handles one request at a time.", ge=1, le=256)] = 8
    concurrency: Annotated[int, setting("ASGI: maximum of concurrent requests per worker.", ge=1, le=100_000)] = 1_000
    edges: Annotated[int, setting("Processes that hold the client connections.", ge=1, le=64)] = 1
    direct: Annotated[
        bool,
        setting(
            "No edge: workers hold the client connections. Fastest; a killed worker loses its connections.", switch=True
        ),
    ] = False
    interface: Annotated[Literal["auto", "wsgi", "asgi"], setting("Interface of the app; auto detects it.")] = "auto"
    app_dir: Annotated[Path, setting("Folder to import the app from.")] = Path()
    root_path: Annotated[str, setting("Path prefix that a proxy in front strips (SCRIPT_NAME, root_path).")] = ""
    reload: Annotated[bool, setting("Restart the workers when a source file changes.", switch=True)] = False
    reload_dir: Annotated[tuple[Path, ...], setting("Folder to watch instead of --app-dir. May be repeated.")] = ()
    preload: Annotated[bool, setting("Import the app once and fork the workers from there.")] = True
    lifespan: Annotated[
        Literal["auto", "on", "off"],
        setting("ASGI lifespan; auto continues without it if the app does not support it."),
    ] = "auto"
    proxy: Annotated[
        tuple[str, ...], setting("Upstream to pass all requests to, http://host:port. May be repeated.")
    ] = ()
    proxy_headers: Annotated[
        bool, setting("Trust Forwarded and X-Forwarded-* from --trusted-proxies.", switch=True)
    ] = False
    trusted_proxies: Annotated[
        tuple[str, ...], setting("Address or network of a trusted proxy; `*` for all. May be repeated.")
    ] = ("127.0.0.1", "::1", "unix")
    certfile: Annotated[Path | None, setting("TLS certificate chain, PEM; reloaded on HUP.")] = None
    keyfile: Annotated[Path | None, setting("TLS private key, PEM.")] = None
    http2: Annotated[bool, setting("Offer HTTP/2 to TLS clients.")] = True
    queue_size: Annotated[
        int, setting("Maximum of requests that wait for a worker; more get 503.", ge=1, le=1_000_000)
    ] = 1_000
    queue_timeout: Annotated[Duration, setting("Longest wait for a worker; then 503.", ge=0.001, le=3_600)] = Duration(
        10
    )
    request_timeout: Annotated[
        Duration,
        setting("Longest time until the response begins; then 504 and a new worker. 0: no limit.", ge=0, le=86_400),
    ] = Duration(60)
    body_max: Annotated[Size, setting("Maximum size of a request body.", ge=0)] = Size(2 * 2**30)
    max_requests: Annotated[int, setting("Replace a worker after this many requests, ±10 %. 0: never.", ge=0)] = 0
    max_rss: Annotated[Size | None, setting("Replace a worker whose memory exceeds this.", ge=2**20)] = None
    drain: Annotated[Duration, setting("Time for requests to finish after TERM or HUP.", ge=0, le=3_600)] = Duration(25)
    keep_alive: Annotated[Duration, setting("Time after which an idle connection is closed.", ge=1, le=3_600)] = (
        Duration(60)
    )
    connections_max: Annotated[
        int, setting("Maximum of open connections per edge; more wait in the kernel.", ge=1, le=1_000_000)
    ] = 10_000
    compress: Annotated[bool, setting("Compress text responses (gzip; br and zstd with headrace[web]).")] = True
    cache_control: Annotated[str, setting("Folder: the Cache-Control header; empty means no-cache.")] = ""
    index: Annotated[bool, setting("Folder: list folders that have no index.html.", switch=True)] = False
    rate_limit: Annotated[
        str, setting("Maximum rate per client address, for example 100/s or 600/m; more get 429.")
    ] = ""
    access_log: Annotated[
        str, setting("File, `-` for standard output, `off`; auto is `-` on a terminal, else off.")
    ] = "auto"
    access_log_format: Annotated[Literal["combined", "json"], setting("Format of the access log.")] = "combined"
    admin: Annotated[
        str, setting("Address of the listener for /metrics and /health: host:port, or a socket's path.")
    ] = ""
    broker: Annotated[str, setting("Broker for durable requests: http://host:port, or a data folder.")] = ""
    durable_queue: Annotated[str, setting("Queue of the durable requests.")] = "headrace-requests"
    respond_async: Annotated[
        bool,
        setting(
            "With --broker: any request with Prefer: respond-async is durable; off: only those that a rule covers."
        ),
    ] = True
    routes: Annotated[tuple[RouteSettings, ...], setting("Routes by host and path; tables in the file.")] = ()
    durable: Annotated[
        tuple[DurableSettings, ...], setting("Requests that are stored before 202; tables in the file.")
    ] = ()
    limits: Annotated[tuple[LimitSettings, ...], setting("Rate limits of clients; tables in the file.")] = ()
    log_format: Annotated[Literal["auto", "text", "json"], setting("auto: text on a terminal, else json.")] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("Lowest level to log.")] = "info"


FIXED: Final = (
    "host",
    "port",
    "uds",
    "edges",
    "direct",
    "admin",
    "reload",
    "reload_dir",
    "http2",
    "broker",
    "durable_queue",
)
"""Settings that a reload does not change."""
