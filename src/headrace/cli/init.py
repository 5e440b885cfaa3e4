"""`headrace init`: a starter project."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.cli.options import BROKER_DEFAULT
from headrace.up.starter import TEMPLATES, write_starter


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default="full",
    show_default=True,
    help="; ".join(f"{name}: {template.about}" for name, template in TEMPLATES.items()) + ".",
)
def init(folder: Path, template: str) -> None:
    """Write a starter project that runs at once: headrace.toml, code with comments, tests.

    \b
      headrace init shop && cd shop && headrace up

    Nothing is overwritten: if one of its files is there, nothing is written.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    names = write_starter(folder, TEMPLATES[template])
    click.echo(f"Written into {folder.resolve()}: {', '.join(names)}")
    lines = ["", "Next:"]
    lines += [f"  cd {folder}"] if folder != Path() else []
    lines += ["  headrace up           # Ctrl-C stops it; the console is at http://127.0.0.1:9325"]
    if "web" in TEMPLATES[template].sections:
        lines.append("""  curl -d '{"book": "Moby Dick"}' http://127.0.0.1:8000/orders""")
    lines.append(f"  headrace top --broker {BROKER_DEFAULT}")
    click.echo("\n".join(lines))
