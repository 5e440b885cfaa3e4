"""Every section and key of headrace.toml, from the settings themselves: for `headrace config` and docs/up.md."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.settings import describe
from headrace.up.sections import SECTIONS
from headrace.up_settings import UpSettings


def kinds() -> dict[str, type[msgspec.Struct]]:
    """Section → its settings, in the order in which they are shown."""
    return {name: section.kind() for name, section in SECTIONS.items()} | {"up": UpSettings}


def reference() -> str:
    """All of it as Markdown: a table a section."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for section, kind in kinds().items():
        command = " ".join(SECTIONS[section].command) if section in SECTIONS else section
        yield f"### [{section}]: `headrace {command}`\n"
        yield "| key | kind | default | meaning |"
        yield "| --- | --- | --- | --- |"
        for setting in describe(kind, section):
            default = f"`{setting.default}`" if setting.default else ""
            key = f"[[{section}.{setting.name}]]" if setting.tables else setting.name
            cells = (f"`{key}`", setting.kind, default, setting.help)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""
