"""The part of the web server that clients see: listening sockets, routes, rate limits, access log, metrics.

In: HTTP exchanges of connections. Out: the same exchanges, given to an app's dispatcher, a folder, a proxy or the durable
requests. It runs in an edge process, or in each worker with `--direct`.

Open `request_router.py` first: the path of every request. `frontend.py` puts it behind a listener.
"""
