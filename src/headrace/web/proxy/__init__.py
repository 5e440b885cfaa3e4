"""Reverse proxy: other HTTP servers as consumers of the queue.

proxy_target.py      the queue in front of the upstream servers; who gets a request, and what happens when that fails
health.py      which upstream may get requests: rules only
upstream.py    one upstream: its connections that are kept, its counters
relay.py       one request on its way there, and its answer on its way back
upstream_connection.py  one connection to an upstream
response_reader.py      the bytes of answers, read strictly
request_head.py        the head of a request, as an upstream gets it
health_check.py       asking for `health_path`
"""

from headrace.web.proxy.address import Address, upstreams_of
from headrace.web.proxy.proxy_target import ProxyTarget

__all__ = ["Address", "ProxyTarget", "upstreams_of"]
