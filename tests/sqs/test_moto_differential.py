"""Moto, an independent imitation of SQS, as a second opinion: the same programs of calls, the same answers.

Moto runs in this process (its `mock_aws`), and not as a server: so both have one clock, which the program moves, and a call takes a
millisecond. HEADRACE_MOTO_EXAMPLES is the number of programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from moto import mock_aws

from tests.sqs.moto_differences import ALIKE, DIFFERENCES, REFUSED, Difference
from tests.sqs.moto_pair import Clients
from tests.sqs.moto_programs import OPENING, Step, programs, step

EXAMPLES: Final = int(os.environ.get("HEADRACE_MOTO_EXAMPLES", "24"))
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "sqs.md"


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with mock_aws():
        clients = Clients()
        yield clients
        clients.close()


@pytest.fixture(scope="module")
def query_clients(query_models: Path) -> Iterator[Clients]:
    with mock_aws():
        clients = Clients(query_models)
        yield clients
        clients.close()


def run(clients: Clients, program: list[Step]) -> None:
    with clients.pair() as pair:
        for at, call in enumerate((*OPENING, *program)):
            ours, theirs = pair.run(call)
            assert ours == theirs, (at, call)
            if pair.inconclusive:
                break


QUIET: Final[dict[str, Any]] = {"derandomize": True, "database": None, "phases": (Phase.generate,)}
"""Always the same programs, and none is made shorter when it fails: that takes minutes, and the call that differs is named."""


@settings(max_examples=EXAMPLES, **QUIET)
@given(program=programs)
def test_answers_are_those_of_moto(clients: Clients, program: list[Step]) -> None:
    run(clients, program)


@settings(max_examples=EXAMPLES // 4, **QUIET)
@given(program=programs)
def test_answers_to_query_requests_are_those_of_moto(query_clients: Clients, program: list[Step]) -> None:
    run(query_clients, program)


RECEIVED: Final = (step("send_message", "a", MessageBody="m"), step("receive_message", "a", WaitTimeSeconds=0))


@pytest.mark.parametrize("call", ALIKE, ids=str)
def test_odd_calls_are_answered_as_by_moto(clients: Clients, call: Step) -> None:
    run(clients, [*RECEIVED, call])


@pytest.mark.parametrize(
    ("call", "code"), [(call, code) for cases in REFUSED.values() for call, code in cases], ids=str
)
def test_what_moto_does_not_check_is_refused(clients: Clients, call: Step, code: str) -> None:
    with clients.pair() as pair:
        for before in (*OPENING, *RECEIVED):
            pair.run(before)
        assert pair.ours.run(call) == {"Error": code}
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # errors of Moto itself
            assert pair.theirs.run(call) != {"Error": code}, "Moto checks it now: it belongs to ALIKE"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_differences_are_still_there(clients: Clients, difference: Difference) -> None:
    """Else what is said of Moto is outdated, and more of it can be compared."""
    with clients.pair() as pair:
        for call in OPENING:
            pair.run(call)
        answers = [pair.run_unconditionally(call) for call in difference.program]
    assert [ours == theirs for ours, theirs in answers[:-1]] == [True] * (len(answers) - 1)
    ours, theirs = answers[-1]
    assert (difference.pick(ours), difference.pick(theirs)) == (difference.ours, difference.moto)


def test_differences_are_documented() -> None:
    section = DOCUMENT.read_text().partition("## Where Moto differs from AWS")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")][2:]
    assert sorted(rows) == sorted({difference.name for difference in DIFFERENCES} | REFUSED.keys())
