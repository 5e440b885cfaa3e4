"""`headrace bench queue` measures a real broker and leaves nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.cli.conftest import CommandLine


def test_queue_is_measured_and_nothing_is_left(run: CommandLine) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a short path: the broker's socket is in there
        rows = run("bench", "queue", "--folder", folder, "--time", "200ms", "--clients", "4", "-o", "json").json
        assert list(Path(folder).iterdir()) == []
    assert [row["what"] for row in rows] == ["sync 4 KiB", "send", "send 100", "send, receive, delete"]
    assert all(row["a_second"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in rows)
