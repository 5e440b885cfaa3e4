"""One HTTP/1.1 engine for every listener: bytes in, complete requests out, answers back in order.

Read in this order: `messages.py` (what a handler sees), `parse.py` and `reader.py` (bytes to requests, no I/O),
`engine.py` (a connection), `buffered.py` (whole requests and their answers), `listener.py` (sockets).
"""
