"""The TLS context that the settings ask for."""

from __future__ import annotations

import ssl
from pathlib import Path

from headrace.http.tls import server_tls
from headrace.settings import SettingsError, flag_of
from headrace.web.settings import WebSettings


def make_tls(settings: WebSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises: SettingsError."""
    certificate, key = settings.certfile, settings.keyfile
    if certificate is None:
        return None
    try:
        _refuse_encrypted(key or certificate)
        context = server_tls(certificate, key)
    except OSError as error:
        place = f"{flag_of('certfile')} {certificate}"
        with_key = f" with {key}" if key else ""
        raise SettingsError(place, f"cannot be used{with_key}: {error.strerror or error}") from None
    context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    return context


def _refuse_encrypted(key: Path) -> None:
    """OpenSSL would ask for the password on the terminal, and wait for ever without one."""
    if b"ENCRYPTED" in key.read_bytes():
        raise SettingsError(flag_of("keyfile"), f"{key} is encrypted; give a key without password")
