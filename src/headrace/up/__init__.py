"""`headrace up`: everything that headrace.toml names, under one supervisor.

Read in this order: `sections.py` (what there can be), `plan.py` (what the file asks for), `child.py` (one service as a
process), `supervisor.py` (the order of things).
"""
