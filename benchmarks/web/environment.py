"""The environment that all contenders run in, headrace too: the same versions of everything for everybody."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

from benchmarks.servers import run

ROOT: Final = Path(__file__).parent.parent.parent
REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"


def install(cache: Path, name: str = "web", requirements: Path = REQUIREMENTS) -> Path:
    """Make it, or bring it up to date; idempotent. Returns the folder of its programs.

    Args:
        name: of its folder in `cache`.
        requirements: what is installed, with headrace.

    Raises:
        CannotInstall: pip says no; the text says why.
    """
    home = (cache / name).resolve()
    mark = home / "installed"
    wanted = _wanted(requirements)
    if not mark.exists() or mark.read_text() != wanted:
        run(sys.executable, "-m", "venv", home)
        run(home / "bin/python", "-m", "pip", "install", "--quiet", "-r", requirements, "-e", ROOT)
        mark.write_text(wanted)
    return home / "bin"


def _wanted(requirements: Path) -> str:
    """What the environment depends on, as one word."""
    return hashlib.sha256(requirements.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
