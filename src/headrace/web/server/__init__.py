"""The processes of `headrace serve`: a supervisor that starts, watches and replaces edges, fork servers and workers.

In: the settings, signals, and messages of the processes over their control channels (`control.py`). Out: processes, metrics
and health on the admin listener, and the status that the broker shows in the console. Nothing here handles a request.

Open `supervisor.py` first, then `reconciler.py`: the rules that decide which worker processes there should be.
"""
