"""Formats: rows as bytes and back, without I/O.

In: message bodies or lines, and a schema. Out: an Arrow table of exactly this schema, and which bodies are invalid, with the
reason; and rows as JSON or Arrow bodies. Types are strict: nothing becomes NULL silently. Open `decoding.py` first.
"""
