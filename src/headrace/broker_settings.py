"""What `headrace broker` can be told, and the combinations that it refuses."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from headrace.settings import Duration, SettingsError, Size, flag_of, setting

REQUEST_LOOPBACK_BYTES: Final = 96 * 1_048_576
"""A native batch (64 MiB) and what it is wrapped in."""
REQUEST_REMOTE_BYTES: Final = 8 * 1_048_576
"""An SQS batch (1 MiB) with every byte escaped (`%00`, `\\u0000`). Bodies are read and hashed before it is known who sent
them, so strangers must not send long ones."""

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)

Port = Annotated[int, setting("TCP port; 0 takes a free one and logs which.", ge=0, le=65_535)]


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `broker`."""

    data: Annotated[Path, setting("Folder of the store; made if absent, with mode 0700.")] = Path("headrace-data")
    store: Annotated[
        str | None, setting("PostgreSQL instead of a folder: postgresql://USER@HOST/DATABASE; shared by many brokers.")
    ] = None
    store_of: Annotated[
        tuple[str, ...],
        setting("PATTERN=postgresql://…: queues, topics, state whose names fit are there instead. May be repeated."),
    ] = ()
    host: Annotated[str, setting("Address to listen on. Not a loopback one: --keys and TLS are required.")] = (
        "127.0.0.1"
    )
    port: Port = 9324
    keys: Annotated[Path | None, setting("File of access keys; without it, nobody is asked for a signature.")] = None
    certfile: Annotated[Path | None, setting("TLS certificate chain, PEM.")] = None
    keyfile: Annotated[Path | None, setting("TLS private key, PEM; unencrypted, mode 0600.")] = None
    behind_proxy: Annotated[
        bool, setting("A proxy in front ends TLS; allows a foreign --host without a certificate.", switch=True)
    ] = False
    allow_host: Annotated[
        tuple[str, ...], setting("Host name that clients may use, besides loopback names. May be repeated.")
    ] = ()
    queue_urls: Annotated[
        Literal["standard", "domain", "path", "short-default"], setting("Form of the queue URLs in SQS answers.")
    ] = "short-default"
    cooldowns: Annotated[bool, setting("AWS's 60 s between purges, and between delete and re-create.")] = True
    metrics: Annotated[
        Literal["local", "everyone", "off"], setting("Who may read /metrics: local means loopback and the Unix socket.")
    ] = "local"
    connections_max: Annotated[int, setting("Open connections; more wait in the kernel.", ge=1, le=1_000_000)] = 10_000
    request_max: Annotated[
        Size | None,
        setting("Longest request body; if not given, 96MiB on loopback and 8MiB elsewhere.", ge=1_048_576, le=2**30),
    ] = None
    drain: Annotated[Duration, setting("Time to finish after TERM, at most 14 s.", ge=0, le=14)] = Duration(10)
    log_format: Annotated[Literal["auto", "text", "json"], setting("auto: text on a terminal, else json.")] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("Least severe line to log.")] = "info"


def request_bytes_max(settings: BrokerSettings) -> int:
    """The longest request body that the listener takes."""
    if settings.request_max is not None:
        return settings.request_max
    return REQUEST_LOOPBACK_BYTES if is_loopback(settings.host) else REQUEST_REMOTE_BYTES


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def stores_of(settings: BrokerSettings) -> list[tuple[str, str]]:
    """(pattern, URL) of each --store-of, in order. Raises SettingsError."""
    found = []
    for text in settings.store_of:
        pattern, _, url = text.partition("=")
        if not pattern or not url.startswith(("postgresql://", "postgres://")):
            raise SettingsError(flag_of("store_of"), "is no PATTERN=postgresql://USER@HOST/DATABASE")
        found.append((pattern, url))
    return found


def databases_of(settings: BrokerSettings) -> list[tuple[str, str]]:
    """(what it is called, URL) of each database of a broker, once. Raises SettingsError."""
    if settings.store is None:
        return []
    named = [("store", settings.store), *((f"store of {pattern}", url) for pattern, url in stores_of(settings))]
    first = {url: name for name, url in reversed(named)}
    return [(name, url) for name, url in named if first[url] == name]


def check(settings: BrokerSettings) -> None:
    """Refuse what would be unsafe or cannot work.

    Without signatures everybody who reaches a listener may do everything; without TLS everybody on the way may read
    and, for five minutes, replay. Both are an error and not a warning, since nobody reads warnings.

    Raises:
        SettingsError: names the flag and what to do.
    """
    if (settings.certfile is None) != (settings.keyfile is None):
        given, missing = ("certfile", "keyfile") if settings.certfile else ("keyfile", "certfile")
        raise SettingsError(flag_of(given), f"needs {flag_of(missing)} as well")
    for host in settings.allow_host:
        # `*` would switch the guard off; a port would never match.
        if _HOST_NAME.fullmatch(host) is None:
            raise SettingsError(flag_of("allow_host"), f"{host!r} is not a host name without port")
    if settings.store is not None and not settings.store.startswith(("postgresql://", "postgres://")):
        raise SettingsError(flag_of("store"), "is no postgresql://USER@HOST/DATABASE; for a folder use --data")
    if settings.store_of and settings.store is None:
        raise SettingsError(flag_of("store_of"), f"needs {flag_of('store')}, for all that fits no pattern")
    stores_of(settings)
    if is_loopback(settings.host):
        return
    place = f"--host {settings.host}"
    if settings.keys is None:
        raise SettingsError(place, "is not a loopback address: name the access keys with --keys FILE, or use 127.0.0.1")
    if settings.certfile is None and not settings.behind_proxy:
        reason = "is not a loopback address: give --certfile and --keyfile, or --behind-proxy if a proxy ends TLS"
        raise SettingsError(place, reason)
