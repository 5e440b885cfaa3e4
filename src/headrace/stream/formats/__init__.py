"""Rows as bytes and back: JSON, Arrow IPC, lines. No I/O; the same rules for queues, files, tables and both engines."""
