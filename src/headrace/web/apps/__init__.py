"""Python applications: WSGI (PEP 3333) and ASGI 3, to the letter of their specifications.

In: exchanges, or requests of a link. Out: calls of the application, and its responses. It knows neither queues nor
processes.

Open `wsgi.py` or `asgi.py` first. `app_loading.py` imports an application and finds out which of the two it is.
"""
