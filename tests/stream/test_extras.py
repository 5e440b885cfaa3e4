"""Without the libraries of the extra, whoever imports or runs streams is told what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

WITHOUT = """
import sys
sys.modules["pyarrow"] = None   # what Python does with a module that is not there: ModuleNotFoundError
sys.modules["duckdb"] = None
"""
FILE = "import headrace.stream as hs\npipeline = hs.pipeline('p', hs.memory('k string', []))\n"


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_importing_streams_says_what_to_install_and_is_an_import_error() -> None:
    ran = _run("try:\n    import headrace.stream\nexcept ImportError as error:\n    print(error)")
    assert ran.stdout == "pyarrow is not installed; pip install 'headrace[stream]'\n", ran.stderr


@pytest.mark.parametrize("command", ["run", "plan", "test"])
def test_commands_say_it_in_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(FILE)
    ran = _run("from headrace.cli.main import main\nmain()", "stream", command, str(tmp_path / "p.py"))
    assert ran.returncode == 1
    assert ran.stderr.endswith("p.py, line 1: pyarrow is not installed; pip install 'headrace[stream]'\n"), ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_help_needs_nothing() -> None:
    assert _run("from headrace.cli.main import main\nmain()", "stream", "run", "--help").returncode == 0


def test_listing_pipelines_needs_only_the_base_package(tmp_path: Path) -> None:
    code = f"""
import headrace
from headrace.cli.main import main
with headrace.connect({str(tmp_path / "store")!r}) as client:
    client.queue("orders", create=True)
main()
"""
    ran = _run(code, "stream", "ls", "--broker", str(tmp_path / "store"), "-o", "json")
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
