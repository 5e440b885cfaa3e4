"""The TLS context that the settings ask for."""

from __future__ import annotations

import ssl

from headrace.certificates import listener_tls
from headrace.web.settings import WebSettings


def make_tls(settings: WebSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises: SettingsError."""
    context = listener_tls(settings.certfile, settings.keyfile)
    if context is not None:
        context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    return context
