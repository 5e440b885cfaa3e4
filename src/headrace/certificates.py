"""The TLS context of a listener, as the settings `certfile` and `keyfile` of its section ask for it."""

from __future__ import annotations

import ssl
from pathlib import Path

from headrace.http.tls import server_tls
from headrace.settings import SettingsError, flag_of


def listener_tls(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    """None without a certificate. `keyfile` None: the key is in `certfile`, too. Raises: SettingsError."""
    if certfile is None:
        return None
    try:
        return server_tls(certfile, keyfile)
    except OSError as error:
        place = f"{flag_of('certfile')} {certfile}"
        with_key = f" with {keyfile}" if keyfile else ""
        raise SettingsError(place, f"cannot be used{with_key}: {error.strerror or error}") from None
