"""Durable requests: a request is committed to the broker before it is answered 202, and run like any message.

Reading order: `stats_aggregator.py` (what is stored, and the rules), `intake.py` (from a client to the broker), `runner.py` (from
the broker to the application and back), `status_pages.py` (what the status URL shows).
"""
