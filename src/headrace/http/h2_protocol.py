"""The `h2` library, set up as the server's side of a connection: what it offers, and how much it may keep."""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from headrace.http.limits import Limits

STREAMS_MAX: Final = 100
"""Requests of one connection at a time: the least that RFC 5.1.2 recommends, and what clients assume before they know."""
STREAM_ROOM: Final = 262_144
"""Body bytes of one stream that the consumer has not taken; then the client waits. 40 Mbit/s at 50 ms of way."""
CONNECTION_ROOM: Final = 1_048_576
"""Body bytes of all streams that consumers have not taken. Bounds what one connection can make us hold."""
TABLE_BYTES_MAX: Final = 4_096  # of the encoder: what the RFC begins with; 10,000 connections hold 40 MB
_CLOSED_MAX: Final = 256  # closed streams that are remembered: frames that were on their way are told from faults
_STREAMS_BEARABLE: Final = 1_000  # beyond this the library ends the connection; up to it, we refuse stream by stream


class _Protocol(H2Connection):
    MAX_CLOSED_STREAMS = _CLOSED_MAX


def new_protocol(limits: Limits) -> H2Connection:
    """The library's side of a connection, which has said what we offer."""
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,  # `h2_fields.py` does, and spares the other streams
        normalize_inbound_headers=False,
        validate_outbound_headers=False,  # `Fields` did
        normalize_outbound_headers=False,
    )
    protocol = _Protocol(config)
    offered = {
        SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
        SettingCodes.INITIAL_WINDOW_SIZE: STREAM_ROOM,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes + 32 * limits.headers_max,
        SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
    }
    protocol.local_settings = Settings(client=False, initial_values=offered)
    protocol.initiate_connection()
    protocol.local_settings = Settings(
        client=False, initial_values={**offered, SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS_BEARABLE}
    )
    protocol.increment_flow_control_window(CONNECTION_ROOM - protocol.inbound_flow_control_window)
    # Between our own limit, which is answered by 431, and this one, which is fatal since the table is then unknown.
    protocol.decoder.max_header_list_size = 2 * limits.header_bytes + 65_536
    return protocol
