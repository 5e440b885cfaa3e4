"""The TLS context of a listener."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn


def server_tls(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """At least TLS 1.2, no compression, no renegotiation; the standard library's ciphers.

    Args:
        certificate: PEM, the whole chain, the server's own first.
        key: PEM; None if it is in `certificate` too.

    Raises: OSError (ssl.SSLError is one), if the files are missing or do not fit together, or the key is encrypted.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate, key, _refuse_encrypted)
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path | None = None) -> None:
    """Let later handshakes of a listener use what these files have now.

    Raises: OSError: as server_tls; nothing has changed.
    """
    server_tls(certificate, key)  # a certificate that does not fit its key would spoil the context in use
    context.load_cert_chain(certificate, key, _refuse_encrypted)


def _refuse_encrypted() -> NoReturn:
    """OpenSSL would ask for the password on the terminal, and wait for ever without one."""
    raise OSError("the key is encrypted; give one without password")
