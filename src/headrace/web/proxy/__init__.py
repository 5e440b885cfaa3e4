"""Reverse proxy: other HTTP servers as consumers of the queue.

In: exchanges of a route with upstreams. Out: HTTP/1.1 requests to them, and their responses. Open `proxy_target.py` first.

proxy_target.py     the queue in front of the upstreams: which one gets a request, and what happens when it fails
health.py           which upstream may get requests: rules only
upstream.py         one upstream: its connections, its health checks, its counters
relay.py            one request on its way to an upstream, and the response on its way back
response_reader.py  parses responses, strictly
request_head.py     renders the head of a request
"""

from headrace.web.proxy.address import Address, upstreams_of
from headrace.web.proxy.proxy_target import ProxyTarget

__all__ = ["Address", "ProxyTarget", "upstreams_of"]
