"""The Unix sockets between edges and workers, over which requests and responses travel as frames.

In, at the edge: requests from a dispatcher; in the worker: frames. Out: exchanges that the worker's app answers, and their
responses. `frames.py` defines the wire: open it first.

Edge: `link_server.py`, `worker_link.py`, `stream_flow.py`. Worker: `wsgi_link_threads.py` and `wsgi_link.py` for WSGI,
`asgi_link.py` and `link_exchange.py` for ASGI.
"""
