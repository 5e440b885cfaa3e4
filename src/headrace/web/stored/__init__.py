"""Durable requests: a request is committed to the broker before it is answered 202, and run like any message.

In: exchanges that a rule, a decorator or `Prefer: respond-async` makes durable. Out: a 202 with a status URL; later the
request itself, run through the web server's own router, and its stored response.

Reading order: `durable_requests.py` (the hook in the router), `records.py` (what is stored, and the rules), `intake.py`
(from a client to the broker), `runner.py` (from the broker to the application and back), `status_pages.py`.
"""
