"""The worker pool: processes that pull tasks from the broker and run them. It begins at `parent.py` and `child.py`."""
