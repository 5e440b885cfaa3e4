"""The queue in front of an app, and the choice of a worker for each request.

In: exchanges from the request router. Out: requests to workers, and 503, 504 or 502 for those that cannot be served. Here
requests wait, are shed, are given to another worker when theirs dies, and are timed.

Open `admission.py` first (the rules of the queue), then `base_dispatcher.py` and `dispatcher.py` (workers in other
processes) or `local_dispatcher.py` (an app in the same process).
"""
