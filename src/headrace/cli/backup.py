"""`headrace backup`, `restore` and `fsck`: a store's copy, the way back, and a look at all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click
import msgspec

from headrace._version import __version__
from headrace.cli.options import output_option
from headrace.cli.output import chosen, print_json, print_row, print_rows
from headrace.cli.progress import stage_progress
from headrace.settings import parse_size

if TYPE_CHECKING:
    from headrace.queue.store.checking import Report

RATE_DEFAULT = "100MiB"


def _rate(value: str) -> int:
    try:
        return int(parse_size(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("source", metavar="DATA|URL")
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--verify/--no-verify", default=True, help="Read the copy whole: pages, counts, checksums of messages.")
@click.option(
    "--rate",
    type=_rate,
    default=RATE_DEFAULT,
    metavar="SIZE",
    show_default=True,
    envvar="HEADRACE_BACKUP_RATE",
    show_envvar=True,
    help="Copy at most so much a second, so that the broker's own commits do not wait; 0: as fast as it goes.",
)
@output_option
def backup(source: str, target: Path, verify: bool, rate: int, output: str | None) -> None:
    """Copy a store into the new folder DEST, while its broker runs or not.

    \b
      headrace backup /var/lib/headrace /backup/headrace-$(date +%F)

    The copy is of one moment, and has every message that was acknowledged before the command began. DATA is the broker's
    data folder, or the URL of its Unix socket in there. Exit codes: 0 done and (with --verify) found whole, 1 failed: then
    there is no DEST.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    from headrace.queue.store.backup import take_backup  # noqa: PLC0415 - loads SQLite

    with stage_progress() as progress:
        manifest = take_backup(
            folder_of(source), target, version=__version__, verify=verify, rate_bytes_s=rate, progress=progress
        )
    _print_manifest({"backup": str(target)}, manifest, output)


@click.command()
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@output_option
def restore(source: Path, data: Path, output: str | None) -> None:
    """Make the new data folder DATA of a backup.

    \b
      headrace restore /backup/headrace-2026-11-26 ./data && headrace broker --data ./data

    All of the backup is checked first, and DATA appears when it is whole and on the disk. It must not be there yet, or be
    empty. Exit codes: 0 done, 1 failed: then there is no DATA.
    """  # noqa: D301 (as above)
    from headrace.queue.store.backup import restore as make  # noqa: PLC0415 - as above

    with stage_progress() as progress:
        manifest = make(source, data, progress=progress)
    _print_manifest({"data": str(data)}, manifest, output)


@click.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Mend what can be mended; a copy of the files as they were stays.")
@output_option
def fsck(data: Path, repair: bool, output: str | None) -> int:
    """Look at all of a stopped store, or at a backup: pages, counts, commits, leases, each message's checksum.

    Changes nothing without --repair, which does what the broker does when it starts and finds damage, and sets messages
    aside whose checksums are wrong. Exit codes: 0 whole (or repaired), 1 damaged.
    """
    from headrace.queue.store.fsck import examine  # noqa: PLC0415 - as above

    with stage_progress() as progress:
        report = examine(data, progress=progress)
    if report.damage and repair:
        _print_report(report, output if output != "json" else "jsonl")
        report = _repaired(data)
    _print_report(report, output)
    return 1 if report.damage else 0


def _repaired(data: Path) -> Report:
    from headrace.queue.store.fsck import examine  # noqa: PLC0415 - as above
    from headrace.queue.store.fsck import repair as mend  # noqa: PLC0415

    with stage_progress() as progress:
        kept = mend(data, progress=progress)
        click.echo(f"repaired; the files as they were are in {kept}", err=True)
        return examine(data, progress=progress)


def folder_of(source: str) -> Path:
    """The data folder that a folder or a Unix socket's URL names. Raises UsageError: a broker elsewhere."""
    url = urlsplit(source)
    if url.scheme == "unix":
        return Path(unquote(url.path)).parent
    if url.scheme in ("http", "https"):
        raise click.UsageError(
            f"{source}: a backup is read from the disk; run it where the broker runs, with the folder that --data names"
        )
    return Path(source)


def _print_manifest(head: dict[str, Any], manifest: msgspec.Struct, output: str | None) -> None:
    facts = msgspec.to_builtins(manifest)
    size = sum(file["bytes"] for file in facts.pop("files").values())
    facts.pop("format")
    print_row({**head, **facts, "bytes": size}, output)


def _print_report(report: Report, output: str | None) -> None:
    findings = [
        {key: value for key, value in msgspec.to_builtins(one).items() if value is not None} for one in report.findings
    ]
    facts = {
        "whole": not report.damage, "queues": report.queues, "topics": report.topics, "messages": report.messages,
        "commit_seq": report.commit_seq,
    }  # fmt: skip
    if chosen(output) != "table":
        return (
            print_json({**facts, "findings": findings})
            if chosen(output) == "json"
            else print_row({**facts, "findings": findings}, "jsonl")
        )
    if findings:
        print_rows(findings, output, ("level", "place", "what", "queue", "message"), none="")
    return print_row(facts, output)
