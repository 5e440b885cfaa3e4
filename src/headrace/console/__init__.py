"""The console: what the broker and its clients do, in a browser, live.

A client of the broker like any other. Once a second `sampling` asks it what there is and makes a frozen `Snapshot`;
`history` keeps what moves. A page (`page.Page`) is one function from these to facts: the facts are its JSON
(`/api/…`), its HTML, and, rendered once for all who look, its live part (`/live/…`, one event stream a page).

Nothing here decides about messages, and nothing is needed to run: a broker without a console lacks nothing.
"""
