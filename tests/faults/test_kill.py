"""`kill -9` at random points under load: nothing acknowledged is lost, and order, owners, counts and ids hold exactly."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.faults.broker_process import BrokerProcess
from tests.faults.history import Deletion, History, Receipt, Send
from tests.faults.load import FIFO, STANDARD, Load

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
ROUNDS = int(os.environ.get("HEADRACE_KILL_ROUNDS", "24"))


class Killer:
    """Kills the broker when the load has started so many calls: half of the time right then, else a moment later."""

    def __init__(self, broker: BrokerProcess, chance: random.Random) -> None:
        self.broker = broker
        self.chance = chance
        self.calls_left = 0
        self.due = asyncio.Event()

    def on_call(self) -> None:
        self.calls_left -= 1
        if self.calls_left == 0:
            self.due.set()

    async def round(self) -> None:
        self.due.clear()
        self.calls_left = self.chance.randint(1, 300)
        await self.due.wait()
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() * 0.01)
        self.broker.kill()
        self.broker.spawn()


async def run_rounds(folder: Path, rounds: int, seed: int) -> tuple[History, dict[str, int]]:
    chance = random.Random(seed)
    broker = BrokerProcess(folder)
    broker.start()
    try:
        killer = Killer(broker, chance)
        load = Load(broker.port, chance, killer.on_call)
        await load.create_queues()
        load.start()
        for _ in range(rounds):
            await killer.round()
            await asyncio.to_thread(broker.wait_ready)
        await load.stop()
        left = await load.drain()
        assert broker.stop() == 0, broker.log
        return load.history, left
    finally:
        broker.close()


@pytest.mark.timeout(900)
@pytest.mark.timeout(900)  # on a machine busy with other tests
def test_kill_breaks_no_promise(tmp_path: Path) -> None:
    history, left = asyncio.run(run_rounds(tmp_path / "data", ROUNDS, SEED))
    found = history.violations()
    counts = {name: len(where) for name, where in found.items()}
    acknowledged = sum(one.acknowledged for one in history.sends)
    print(f"seed {SEED}: {ROUNDS} kills, {acknowledged} sends acknowledged, {len(history.receipts)} deliveries,")
    print(f"calls {dict(history.calls)}, left {left}, violations {counts}")
    assert acknowledged > 10 * ROUNDS, "too little load: this run proves little"
    assert history.calls["SendMessage unknown"] > 0, "no kill hit a send"
    assert not found, {name: where[:5] for name, where in found.items()}
    assert not any(left.values())


def _receipt(body: str, *, at: float, count: int = 1, group: str = "", number: int = 0, message: str = "m") -> Receipt:
    return Receipt(FIFO if group else STANDARD, message, body, count, at, at + 0.01, 2.0, group, number)


@pytest.mark.parametrize(
    ("name", "history"),
    [
        ("acknowledged and lost", History(sends=[Send("x", True)])),
        ("never sent", History(receipts=[_receipt("x", at=0)])),
        (
            "delivered after its delete",
            History(
                [Send("x", True)], [_receipt("x", at=0), _receipt("x", at=9, count=2)], [Deletion("m", 1, 2, True)]
            ),
        ),
        (
            "FIFO order",
            History(
                [Send("g:0", True), Send("g:1", True)],
                [_receipt("g:1", at=0, group="g", number=1), _receipt("g:0", at=9, group="g", number=0, message="n")],
            ),
        ),
        (
            "dedup id stored twice",
            History([Send("g:0", True)], [_receipt("g:0", at=0), _receipt("g:0", at=9, message="n")]),
        ),
        (
            "receive count fell",
            History([Send("x", True)], [_receipt("x", at=0, count=2), _receipt("x", at=9, count=2)]),
        ),
        ("two owners or early", History([Send("x", True)], [_receipt("x", at=0), _receipt("x", at=1, count=2)])),
        (
            "two owners of a group",
            History(
                [Send("g:0", True), Send("g:1", True)],
                [_receipt("g:0", at=0, group="g"), _receipt("g:1", at=1, group="g", number=1, message="n")],
            ),
        ),
    ],
)
def test_each_violation_is_seen(name: str, history: History) -> None:
    assert name in history.violations()
