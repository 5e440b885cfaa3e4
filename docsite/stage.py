"""Lays out what the site is built of: the pages of docs/, the root's pages, and the reference, which the code writes.

The pages stay as they are read in the repository; only links are changed here, to where the site has what they lead to.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Final

from docsite import reference

ROOT: Final = Path(__file__).parent.parent
ROOT_PAGES: Final = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}  # fmt: skip
"""Page of the root → page of the site."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LIST_BEHIND_TEXT = re.compile(r"^((?![-*#|>\d ]).+)\n(?=(?:[-*]|1\.) )", re.MULTILINE)


def stage(folder: Path) -> Path:
    """Write the pages and the settings of the site into `folder`, anew.

    Returns:
        The settings file, for Zensical.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for page, text in pages().items():
        path = folder / "docs" / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "img", folder / "docs" / "img")
    settings = (ROOT / "docsite" / "mkdocs.yml").read_text(encoding="utf-8")
    config = folder / "mkdocs.yml"
    config.write_text(settings.replace("SOURCES", str(ROOT / "src")), encoding="utf-8")
    return config


def pages() -> dict[str, str]:
    """Path in the site → text: all pages, with the links that they have there."""
    written = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "docs").rglob("*.md")}
    places = {**{name: _place(name) for name in written}, **ROOT_PAGES}
    texts = {places[name]: _translated((ROOT / name).read_text(encoding="utf-8"), name, places) for name in places}
    return texts | reference.pages()


def _place(name: str) -> str:
    return name.removeprefix("docs/")


def _translated(text: str, name: str, places: dict[str, str]) -> str:
    """A page as the site's Markdown has it: links changed, and a blank line in front of every list. Code stays."""
    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else _prose(part, name, places) for part in parts)


def _prose(text: str, name: str, places: dict[str, str]) -> str:
    linked = LINK.sub(lambda link: _link(link, name, places), text)
    return LIST_BEHIND_TEXT.sub(r"\1\n\n", linked)


def _link(link: re.Match[str], name: str, places: dict[str, str]) -> str:
    """A link that leads out of the site (to a file of the repository) becomes its words."""
    mark, words, target = link.groups()
    words = LINK.sub(lambda inner: _link(inner, name, places), words)
    path, hash_sign, anchor = target.partition("#")
    if "://" in target or not path:
        return f"{mark}[{words}]({target})"
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    place = places.get(meant) or (_place(meant) if meant.startswith("docs/img/") else None)
    if place is None:
        return words
    here = posixpath.dirname(places[name])
    return f"{mark}[{words}]({posixpath.relpath(place, here or '.')}{hash_sign}{anchor})"
