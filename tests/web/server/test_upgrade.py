"""A new supervisor and the one that it replaces; the end to end is in test_serve_faults."""

from __future__ import annotations

import os

import pytest

from headrace.web.server import upgrade


def test_a_supervisor_whose_predecessor_is_gone_serves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setenv(upgrade._READY_VARIABLE, str(writer))
    upgrade.notify_predecessor()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)
    assert upgrade._READY_VARIABLE not in os.environ
