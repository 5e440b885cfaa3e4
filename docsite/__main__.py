"""`python -m docsite`: lay the pages out, then let Zensical build the site. A link that leads nowhere fails the build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from docsite.stage import ROOT, stage

SITE = ROOT / "site"


def main() -> int:
    """0 if every page was built and every link leads somewhere."""
    folder = ROOT / ".cache" / "docsite"
    config = stage(folder)
    zensical = Path(sys.executable).parent / "zensical"
    done = subprocess.run([zensical, "build", "--strict", "--clean", "--config-file", config], check=False)
    if done.returncode == 0:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(folder / "site", SITE)  # Zensical writes only beside its settings
        print(f"open {SITE / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
