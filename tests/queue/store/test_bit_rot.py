"""Random damage to every file of a store: what is hit is lost and told, nothing else is, nothing wrong is delivered.

`HEADRACE_BIT_ROT_ROUNDS` is how many stores are damaged a file; the seed is printed and set by `HEADRACE_SEED`.
"""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Final

import pytest

from tests.queue.store.bit_rot import Sample, Verdict, judge, make_sample, random_damage

SEED: Final = int(os.environ.get("HEADRACE_SEED", "20241124"))
ROUNDS: Final = int(os.environ.get("HEADRACE_BIT_ROT_ROUNDS", "30"))
REFUSED_MAX: Final = 0.03
"""Of damaged WALs: a lost sector that takes a frame's header and the part of its page that would tell which page it was."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("stopped") / "sample", messages=2_000, killed=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("killed") / "sample", messages=600, killed=True)


def run(sample: Sample, name: str, root: Path) -> list[Verdict]:
    print(f"seed {SEED}, {ROUNDS} rounds")
    verdicts = []
    for number in range(ROUNDS):
        damage = random_damage(sample, name, random.Random(f"{SEED}-{name}-{number}"))
        verdict = judge(sample, damage, root / str(number))
        assert not verdict.wrong, (
            f"round {number}: {damage.name} at {damage.offset}, {len(damage.data)} bytes: {verdict.wrong}"
        )
        verdicts.append(verdict)
    print(f"{sum(one.missing for one in verdicts)} lost, {sum(one.reported for one in verdicts)} told")
    return verdicts


def test_damage_to_the_database_costs_what_was_hit(stopped: Sample, tmp_path: Path) -> None:
    verdicts = run(stopped, "headrace.db", tmp_path)
    assert not any(one.refused for one in verdicts)
    assert sum(one.missing for one in verdicts) > ROUNDS / 4, "hardly a message was hit: this run proves little"


def test_damage_to_the_wal_costs_what_was_hit(killed: Sample, tmp_path: Path) -> None:
    verdicts = run(killed, "headrace.db-wal", tmp_path)
    refused = [one.refused for one in verdicts if one.refused]
    assert len(refused) <= 1 + REFUSED_MAX * ROUNDS, refused
    untouched = sum(not one.missing and not one.refused for one in verdicts)
    assert untouched > ROUNDS / 2, "most damage to a WAL can be mended"


@pytest.mark.parametrize("name", ["leases.journal", "acknowledged"])
def test_damage_beside_the_database_costs_no_message(killed: Sample, tmp_path: Path, name: str) -> None:
    verdicts = run(killed, name, tmp_path)
    assert {(one.refused, one.missing) for one in verdicts} == {("", 0)}
