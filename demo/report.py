"""The end of a run: what the ledger proves, and where to go from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from demo.run import Outcome

NAMED_MAX: Final = 5
NEXT: Final = (
    ("headrace init shop && cd shop && headrace up", "a project of your own: web app, tasks, pipeline, console"),
    ("headrace broker --data ./data", "SQS for any AWS SDK or Celery: only the endpoint changes"),
    ("headrace serve shop.main:app", "your Flask, Django or FastAPI app as it is, with a queue in front"),
)


def print_report(console: Console, outcome: Outcome) -> None:
    """The table, every difference by name, and three commands."""
    audit, windows = outcome.audit, outcome.windows
    table = Table(title="Ledger, from the ids on both sides", box=box.ROUNDED, title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    table.add_row("requests accepted", f"{audit.accepted:,}", f"answered 202, with {audit.flights:,} flights")
    table.add_row("requests processed", f"{audit.processed:,}", "every flight of them is in the topic's log")
    table.add_row("lost", _zero(audit.lost), "accepted, not processed; must be 0")
    table.add_row("processed twice", _zero(audit.twice), "must be 0")
    table.add_row("never accepted, yet processed", _zero(audit.strange), "must be 0")
    table.add_row("failed requests", _zero(audit.failed), "answered neither 202 nor 503; must be 0")
    table.add_row("put off (503)", f"{audit.put_off:,}", "tries; each request was sent again, and accepted")
    table.add_row("cut", f"{audit.cut:,}", "tries without an answer; each was sent again under its key")
    table.add_row(
        "known by their key", f"{audit.repeated:,}", "repeated tries of what was stored already: counted once"
    )
    table.add_row("put off or cut, never accepted", _zero(audit.unheard), "must be 0")
    table.add_section()
    table.add_row("windows", f"{windows.closed:,}", f"of {windows.expected:,} that a plain loop over the flights makes")
    table.add_row("windows that differ", _zero(windows.differ), "from the loop's; must be 0")
    table.add_row("windows sent twice", _zero(windows.twice), "must be 0")
    table.add_row("Parquet says otherwise", _zero(windows.parquet_differs), "than the queue; must be 0")
    table.add_row("rows too late", _zero(windows.late), "must be 0")
    table.add_section()
    table.add_row("poison messages", f"{outcome.poison:,}", "fed on purpose")
    table.add_row("dead letters", f"{outcome.letters:,}", "must be the poison, each once")
    table.add_row("dead letters that differ", _zero(outcome.unexplained_letters), "must be 0")
    console.print(table)
    for line in differences(outcome):
        console.print(line, style="red", markup=False, highlight=False)
    verdict = "Nothing was lost, every window is right." if outcome.holds else "A promise was broken: see what is red."
    harm = ", ".join(outcome.harm) or "none"
    console.print(
        f"{verdict} {audit.flights:,} flights, harm: {harm}; {outcome.seconds:.0f} seconds.",
        style="bold green" if outcome.holds else "bold red",
        soft_wrap=True,
        highlight=False,
    )
    console.print("\nNext:")
    for command, meaning in NEXT:
        console.print(f"  [bold]{command:<46}[/] [dim]{meaning}[/]", highlight=False, soft_wrap=True)


def differences(outcome: Outcome) -> list[str]:
    """What is wrong, by name: a line a kind."""
    audit, windows = outcome.audit, outcome.windows
    found: list[tuple[str, Sequence[object]]] = [
        ("lost", audit.lost),
        ("processed twice", audit.twice),
        ("never accepted, yet processed", audit.strange),
        ("put off or cut, never accepted", audit.unheard),
        ("windows that differ", windows.differ),
        ("windows sent twice", windows.twice),
        ("Parquet says otherwise", windows.parquet_differs),
        ("dead letters that differ", outcome.unexplained_letters),
        ("harm not done", outcome.undone),
        ("headrace up ended with", [outcome.exit_code] if outcome.exit_code else []),
    ]
    return [f"{what}: {_named(things)}" for what, things in found if things]


def _named(things: Sequence[object]) -> str:
    more = f" and {len(things) - NAMED_MAX:,} more" if len(things) > NAMED_MAX else ""
    return ", ".join(" ".join(thing) if isinstance(thing, tuple) else str(thing) for thing in things[:NAMED_MAX]) + more


def _zero(wrong: Sequence[object] | int) -> str:
    count = wrong if isinstance(wrong, int) else len(wrong)
    return f"[bold {'red' if count else 'green'}]{count:,}[/]"
