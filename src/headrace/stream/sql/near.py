"""Names like the one that somebody wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, names: Iterable[str]) -> str:
    """At most three of `names` that look like `word`, as text; empty if none does."""
    lower = {candidate.lower(): candidate for candidate in names}
    found = [lower[candidate] for candidate in difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.7)]
    return " or ".join(found)
