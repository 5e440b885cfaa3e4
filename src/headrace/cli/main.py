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


GROUPS: Final[dict[str, dict[str, Entry]]] = {
    "Start": {
        "init": Entry("headrace.cli.init:init", "Create a project that runs at once."),
        "up": Entry("headrace.cli.up:up", "Run all services of headrace.toml."),
        "broker": Entry("headrace.cli.broker:broker", "Run the queue server (SQS API)."),
        "serve": Entry("headrace.cli.serve:serve", "Serve a WSGI or ASGI app, a folder or another server."),
        "worker": Entry("headrace.cli.worker:worker", "Run tasks and consumers."),
        "stream": Entry("headrace.cli.stream:stream", "Run and inspect pipelines: run, plan, ls, lag, …"),
        "console": Entry("headrace.cli.console:console", "Run the web console."),
    },
    "Inspect and change": {
        "queue": Entry("headrace.cli.queue:queue", "Manage queues: ls, peek, send, redrive, …"),
        "topic": Entry("headrace.cli.topic:topic", "Manage topics: subscribe, publish, replay, …"),
        "task": Entry("headrace.cli.task:task", "List, call, cancel and retry tasks."),
        "schedule": Entry("headrace.cli.schedule:schedule", "List, pause, resume and fire schedules."),
        "top": Entry("headrace.cli.top:top", "Watch all queues live."),
        "config": Entry("headrace.cli.config:config", "Show and validate the settings."),
    },
    "Maintain": {
        "store": Entry("headrace.cli.store:store", "Manage a store on PostgreSQL: init, migrate, check, copy."),
        "backup": Entry("headrace.cli.backup:backup", "Back up a store while its broker runs."),
        "restore": Entry("headrace.cli.backup:restore", "Restore a data folder from a backup."),
        "fsck": Entry("headrace.cli.backup:fsck", "Check and repair a stopped store or a backup."),
        "doctor": Entry("headrace.cli.doctor:doctor", "Check whether this machine and the settings are fit."),
        "bench": Entry("headrace.cli.bench:bench", "Measure this machine."),
        "completion": Entry("headrace.cli.completion:completion", "Print a shell's completion script."),
    },
}
"""Heading -> name -> command, in the order of the help. The one table to extend for a new command."""

COMMANDS: Final[dict[str, Entry]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}


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
        for heading, group in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.help) for name, entry in group.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="headrace", message="%(prog)s %(version)s")
def cli() -> None:
    """A durable message queue with a web server, tasks and streams.

    \b
      headrace init shop && cd shop && headrace up     create a project and run it
      headrace broker --data ./data                    run only the queue server
      headrace COMMAND --help                          show help and examples
    """  # noqa: D301 (click's mark for lines that are not to be filled)


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
