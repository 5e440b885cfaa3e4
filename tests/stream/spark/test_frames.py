from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

import headrace.stream as hs
from headrace.stream.plan import MemorySource
from headrace.stream.spark import frames
from headrace.stream.spark.frames import Frames
from headrace.stream.spark.python_step import DeadRows


def test_rows_in_memory_are_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = hs.pipeline("p", hs.memory("id bigint", [[{"id": 1}], [{"id": 2}]])).plan
    made = Frames(cast("Any", None), plan, tmp_path, DeadRows("p", "run", None, queue=False))
    assert isinstance(plan.output, MemorySource)

    def full(path: Path, *rows: Any, **age: int) -> None:
        if path.name == "000001.parquet":
            raise OSError("no space left")
        write_file(path, *rows, **age)

    write_file = frames.write_file
    with monkeypatch.context() as patch:
        patch.setattr(frames, "write_file", full)
        with pytest.raises(OSError, match="no space"):
            made._memory(plan.output)
    assert len(list(made._memory(plan.output).iterdir())) == 2
