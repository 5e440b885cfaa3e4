"""`headrace completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash   echo 'eval "$(headrace completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(headrace completion zsh)"' >> ~/.zshrc
    fish   headrace completion fish > ~/.config/fish/completions/headrace.fish
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    complete = _SHELLS[shell](ctx.find_root().command, {}, "headrace", "_HEADRACE_COMPLETE")
    click.echo(complete.source())
