"""How long tests wait for what must come."""

from __future__ import annotations

PATIENCE_S = 120.0
"""Ends a test that hangs; says nothing of speed. Ten times what a busy machine has been seen to need, and well below
the 600 s that end every test."""
