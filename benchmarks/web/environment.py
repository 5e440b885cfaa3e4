"""The environment that all servers run in, headrace too: the same versions of frameworks and libraries for everybody."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

from benchmarks.servers import run

ROOT: Final = Path(__file__).parent.parent.parent
REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"


def install(cache: Path) -> Path:
    """Make it, or bring it up to date; idempotent. Returns the folder of its programs.

    Raises:
        CannotInstall: pip says no; the text says why.
    """
    home = (cache / "web").resolve()
    mark = home / "installed"
    wanted = _wanted()
    if not mark.exists() or mark.read_text() != wanted:
        run(sys.executable, "-m", "venv", home)
        run(home / "bin/python", "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS, "-e", ROOT)
        mark.write_text(wanted)
    return home / "bin"


def _wanted() -> str:
    """What the environment depends on, as one word."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
