"""The load: programs that keep a queue busy and tell how far they are (`window.py`). Each needs its own library alone."""
