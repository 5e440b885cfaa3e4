"""`headrace`: the group of commands. Nothing but click is imported before it is known which command is meant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

import click

from headrace._version import __version__


class Entry(NamedTuple):
    """Where a command is, and its line in `headrace --help` (there without loading it)."""

    place: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("headrace.cli.init:init", "Write a starter project that runs at once."),
    "up": Entry("headrace.cli.up:up", "Run everything that headrace.toml names, under one supervisor."),
    "broker": Entry("headrace.cli.broker:broker", "Run the broker: a durable queue server with the SQS API."),
    "store": Entry("headrace.cli.store:store", "Prepare a PostgreSQL database: init, migrate, check."),
    "serve": Entry("headrace.cli.serve:serve", "Serve web apps (WSGI, ASGI), folders, other servers."),
    "worker": Entry("headrace.cli.worker:worker", "Run tasks and consumers in worker processes."),
    "task": Entry("headrace.cli.task:task", "Look at tasks; call, cancel and retry them."),
    "schedule": Entry("headrace.cli.schedule:schedule", "Look at schedules; pause, resume and fire them."),
    "queue": Entry("headrace.cli.queue:queue", "Look into queues and change them: ls, peek, send, redrive, …"),
    "stream": Entry("headrace.cli.stream:stream", "Run pipelines over queues: run, plan, ls, lag, …"),
    "topic": Entry("headrace.cli.topic:topic", "Give every message to many queues: subscribe, publish, replay, …"),
    "console": Entry("headrace.cli.console:console", "Look into everything, and help, in a browser."),
    "top": Entry("headrace.cli.top:top", "Watch all queues live: depth, rates, oldest message, commits."),
    "backup": Entry("headrace.cli.backup:backup", "Copy a store while its broker runs."),
    "restore": Entry("headrace.cli.backup:restore", "Make a data folder of a backup."),
    "fsck": Entry("headrace.cli.backup:fsck", "Look at all of a stopped store, or at a backup; repair it."),
    "doctor": Entry("headrace.cli.doctor:doctor", "Is this machine, and what is set, fit to run headrace?"),
    "bench": Entry("headrace.cli.bench:bench", "Measure this machine: syncs of the disk, messages."),
    "config": Entry("headrace.cli.config:config", "Look at the settings: show, validate, reference."),
    "completion": Entry("headrace.cli.completion:completion", "Print the completion script of a shell."),
}
"""Name -> command, in the order of the help. The one table to extend for a new command."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="headrace", message="%(prog)s %(version)s")
def cli() -> None:
    """A durable queue, and what is built on it.

    Start a broker with `headrace broker --data ./data`, then try `headrace queue create hello`, `headrace queue send
    hello "first message"` and `headrace queue peek hello`. Serve an app with `headrace serve module:app`, a folder with
    `headrace serve ./folder`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 called wrongly."""
    try:
        result = cli.main(args=arguments, prog_name="headrace", standalone_mode=False)
    except click.ClickException as error:
        _with_hint(error).show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _exit_if_ours(error)
        raise
    sys.exit(result if isinstance(result, int) else 0)


def _with_hint(error: click.ClickException) -> click.ClickException:
    """Who tries `--json`, as other tools call it, is told ours."""
    if not isinstance(error, click.NoSuchOption) or error.option_name != "--json" or error.ctx is None:
        return error
    if not any(parameter.name == "output" for parameter in error.ctx.command.params):
        return error
    return click.NoSuchOption("--json", "No such option '--json'; here it is `-o json`.", ctx=error.ctx)


def _exit_if_ours(error: Exception) -> None:
    """Tell a HeadraceError in one line and exit. Any other error is a bug of ours: it keeps its traceback."""
    from headrace.cli.failures import explain  # noqa: PLC0415 - loads the client's modules
    from headrace.errors import HeadraceError  # noqa: PLC0415

    if isinstance(error, HeadraceError):
        colour = False if os.environ.get("NO_COLOR") else None
        click.secho(f"Error: {explain(error)}", fg="red", err=True, color=colour)
        sys.exit(1)
