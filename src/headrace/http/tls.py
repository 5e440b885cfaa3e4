"""The TLS context of a listener."""

from __future__ import annotations

import ssl
from pathlib import Path


def server_tls(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """At least TLS 1.2, no compression, no renegotiation; the standard library's ciphers.

    Args:
        certificate: PEM, the whole chain, the server's own first.
        key: PEM; None if it is in `certificate` too.

    Raises: OSError (ssl.SSLError is one), if the files are missing or do not fit together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate, key)
    return context
