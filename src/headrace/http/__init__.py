"""HTTP for every listener: bytes in, requests out, answers back; and what can answer without an application.

Read in this order: `parse.py` and `reader.py` (bytes to requests, no I/O), `engine.py` (a connection), `listener.py`
(sockets). Then whole requests: `messages.py` (what a handler sees), `buffered.py`. Or streams: `exchange.py` (what the
web server's consumers see), `http1.py`, `http2.py`; around them `wrapped.py` and `compress.py`; `static.py` (files).
"""
