"""The starter projects of `headrace init`: put together from pieces, so that each piece is written once and tested once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headrace.errors import CallerError

_PIECES: Final = Path(__file__).parent / "starter"


@dataclass(frozen=True, slots=True)
class Template:
    about: str
    sections: tuple[str, ...]
    """Of headrace.toml, between head and console."""
    files: tuple[str, ...]


TEMPLATES: Final[Mapping[str, Template]] = {
    "full": Template(
        "a web app, tasks, a schedule, a pipeline, the console",
        ("broker", "web", "worker", "stream"),
        ("web.py", "test_web.py", "tasks.py", "test_tasks.py", "pipeline.py"),
    ),
    "web": Template(
        "a web app, tasks, a schedule, the console",
        ("broker", "web", "worker"),
        ("web.py", "test_web.py", "tasks.py", "test_tasks.py"),
    ),
    "queue": Template("tasks, a schedule, the console", ("broker", "worker"), ("tasks.py", "test_tasks.py")),
    "stream": Template("a pipeline, the console", ("broker", "stream"), ("pipeline.py",)),
}


@dataclass(eq=False)
class FilesExist(CallerError):
    folder: Path
    names: list[str]

    def __str__(self) -> str:
        names = ", ".join(self.names)
        return (
            f"{self.folder} has {names} already, and nothing is overwritten: nothing was written; name another folder"
        )


def write_starter(folder: Path, template: Template, *, with_streams: bool | None = None) -> list[str]:
    """Write a project; all of it or nothing.

    Args:
        folder: made if need be.
        with_streams: whether pipelines can run here; None finds out. If not, their section is commented out.

    Returns:
        The names of the files, in the order in which to read them.

    Raises:
        FilesExist: one of its files is there.
    """
    able = find_spec("duckdb") is not None if with_streams is None else with_streams
    files = contents(template, with_streams=able)
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise FilesExist(folder, there)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)
    return list(files)


def contents(template: Template, *, with_streams: bool) -> dict[str, str]:
    """File name → text."""
    sections = [name if name != "stream" or with_streams else "stream-missing" for name in template.sections]
    toml = "".join(_piece(f"toml/{name}.txt") for name in ("head", *sections, "console", "up"))
    readme = "".join(_piece(f"readme/{name}.txt") for name in ("head", *template.sections[1:], "end"))
    files = {name: _piece(f"files/{name}.txt") for name in template.files}
    return {"README.md": readme, "headrace.toml": toml, **files, ".gitignore": _piece("files/gitignore.txt")}


def _piece(name: str) -> str:
    return (_PIECES / name).read_text(encoding="utf-8")
