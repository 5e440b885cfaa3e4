"""What `headrace console` can be told, and the combinations that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from headrace.broker_settings import is_loopback
from headrace.settings import Duration, SettingsError, flag_of, setting

BROKER_DEFAULT = "http://127.0.0.1:9324"


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `console`."""

    broker: Annotated[
        str, setting("The broker: http://HOST:PORT, unix:///PATH, or its data folder; HEADRACE_BROKER counts, too.")
    ] = BROKER_DEFAULT
    host: Annotated[str, setting("Address to listen on. Not a loopback one: --users and TLS are required.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, setting("TCP port; 0 takes a free one and logs which.", ge=0, le=65_535)] = 9325
    users: Annotated[Path | None, setting("File of users and hashed passwords; with it, everybody has to sign in.")] = (
        None
    )
    certfile: Annotated[Path | None, setting("TLS certificate chain, PEM.")] = None
    keyfile: Annotated[Path | None, setting("TLS private key, PEM; unencrypted, mode 0600.")] = None
    behind_proxy: Annotated[
        bool, setting("A proxy in front ends TLS; allows a foreign --host without a certificate.", switch=True)
    ] = False
    allow_host: Annotated[
        tuple[str, ...], setting("Host name that browsers may use, besides loopback names. May be repeated.")
    ] = ()
    read_only: Annotated[bool, setting("Nobody may change anything.", switch=True)] = False
    hide_bodies: Annotated[bool, setting("Never show bodies and attributes of messages.", switch=True)] = False
    session: Annotated[Duration, setting("How long a sign-in lasts.", ge=60, le=30 * 86_400)] = Duration(12 * 3_600)
    log_format: Annotated[Literal["auto", "text", "json"], setting("auto: text on a terminal, else json.")] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("Least severe line to log.")] = "info"


def check(settings: ConsoleSettings) -> None:
    """Refuse what would be unsafe or cannot work: who reaches the console may purge queues.

    Raises:
        SettingsError: names the flag and what to do.
    """
    if (settings.certfile is None) != (settings.keyfile is None):
        given, missing = ("certfile", "keyfile") if settings.certfile else ("keyfile", "certfile")
        raise SettingsError(flag_of(given), f"needs {flag_of(missing)} as well")
    if is_loopback(settings.host):
        return
    place = f"--host {settings.host}"
    if settings.users is None:
        raise SettingsError(
            place, "is not a loopback address: name who may sign in with --users FILE, or use 127.0.0.1"
        )
    if settings.certfile is None and not settings.behind_proxy:
        reason = "is not a loopback address: give --certfile and --keyfile, or --behind-proxy if a proxy ends TLS"
        raise SettingsError(place, reason)


def broker_url(settings: ConsoleSettings) -> str:
    """Where the broker is. A folder means its broker's socket: the console never opens a store itself, which would keep
    the broker from starting."""
    if "://" in settings.broker:
        return settings.broker
    return f"unix://{Path(settings.broker).expanduser().absolute() / 'headrace.sock'}"
