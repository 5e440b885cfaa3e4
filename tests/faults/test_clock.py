"""Clocks that step, machines that reboot, processes that are paused: deadlines hold, and groups keep one owner."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import headrace.clock
from headrace.clock import Anchor, Clock, resume
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, arn_of
from headrace.queue.operations import Operation
from headrace.queue.store.base import Request, Store
from headrace.queue.store.sqlite import open_store
from headrace.testing.driver import entry
from tests.faults.broker_process import BrokerProcess
from tests.faults.load import Load

HOUR_MS: Final = 3_600_000
LEASE_MS: Final = 30_000
STEPS: Final = (-24 * HOUR_MS, -HOUR_MS, HOUR_MS, 24 * HOUR_MS)


@dataclass
class Machine:
    """The clocks of a machine, as the module `time` tells them: the wall's can be set, the uptime's cannot."""

    wall_ms: int = 1_700_000_000_000
    uptime_ms: int = 5_000_000
    boot: str = "first boot"
    CLOCK_BOOTTIME: int = 7

    def time_ns(self) -> int:
        return self.wall_ms * 1_000_000

    def clock_gettime_ns(self, _clock: int) -> int:
        return self.uptime_ms * 1_000_000

    monotonic_ns = clock_gettime_ns

    def pass_time(self, ms: int) -> None:
        self.wall_ms += ms
        self.uptime_ms += ms

    def reboot(self, *, off_ms: int = 10_000) -> None:
        self.wall_ms += off_ms
        self.uptime_ms = 1_000
        self.boot += " and another"


class Running:
    """A store on the machine's own clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store
        self.clock: Clock
        self.open()

    def open(self) -> None:
        self.store, self.clock = open_store(self.folder, cooldowns=False)

    def run(self, operation: Operation) -> Any:
        outcomes: list[Any] = []
        self.store.advance()
        self.store.execute([Request(operation, outcomes.append)])
        (outcome,) = outcomes
        return outcome

    def receive(self, queue: str, visibility_ms: int = LEASE_MS) -> list[Delivery]:
        deliveries: list[Delivery] = self.run(ops.Receive(queue, 10, visibility_ms))
        return deliveries

    def restart(self) -> None:
        self.store.close()
        self.open()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(headrace.clock, "time", machine)
    monkeypatch.setattr(headrace.clock, "boot_id", lambda: machine.boot)
    return machine


@pytest.fixture
def running(machine: Machine, tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data")
    running.run(ops.CreateQueue(arn_of("q")))
    running.run(ops.CreateQueue(arn_of("q.fifo"), {"fifo": True}))
    yield running
    running.store.close()


QUEUE: Final = arn_of("q")
FIFO: Final = arn_of("q.fifo")


def send(running: Running, queue: str, body: str) -> Any:
    fields = {"group": "g", "dedup_id": body} if queue == FIFO else {}
    return running.run(ops.Send(queue, [entry(body, **fields)]))[0]


@pytest.mark.parametrize("step_ms", STEPS)
@pytest.mark.parametrize("queue", [QUEUE, FIFO])
class TestWallClockStep:
    def test_lease_ends_on_time_while_running(
        self, running: Running, machine: Machine, queue: str, step_ms: int
    ) -> None:
        send(running, queue, "x")
        running.receive(queue)
        machine.wall_ms += step_ms
        machine.pass_time(LEASE_MS - 1)
        assert running.receive(queue) == []
        machine.pass_time(1)
        assert [one.receives for one in running.receive(queue)] == [2]

    def test_lease_ends_on_time_across_a_restart(
        self, running: Running, machine: Machine, queue: str, step_ms: int
    ) -> None:
        machine.pass_time(10 * HOUR_MS)
        send(running, queue, "x")
        running.receive(queue)
        machine.wall_ms += step_ms
        machine.pass_time(10_000)
        running.restart()
        machine.pass_time(LEASE_MS - 10_001)
        assert running.receive(queue) == []
        machine.pass_time(1)
        assert [one.receives for one in running.receive(queue)] == [2]


@pytest.mark.parametrize("step_ms", STEPS)
def test_dedup_window_holds_through_a_step_and_a_restart(running: Running, machine: Machine, step_ms: int) -> None:
    first = send(running, FIFO, "x")
    machine.wall_ms += step_ms
    running.restart()
    machine.pass_time(299_999)
    assert send(running, FIFO, "x").id == first.id
    machine.pass_time(1)
    assert not send(running, FIFO, "x").duplicate


@pytest.mark.parametrize("step_ms", STEPS)
def test_delay_holds_through_a_step_and_a_restart(running: Running, machine: Machine, step_ms: int) -> None:
    running.run(ops.Send(QUEUE, [entry("x", delay_ms=60_000)]))
    machine.wall_ms += step_ms
    running.restart()
    machine.pass_time(59_999)
    assert running.receive(QUEUE) == []
    machine.pass_time(1)
    assert len(running.receive(QUEUE)) == 1


@pytest.mark.parametrize("queue", [QUEUE, FIFO])
@pytest.mark.parametrize("step_ms", [-24 * HOUR_MS, -HOUR_MS, 0])
def test_reboot_with_the_clock_set_back_hides_nothing_longer(
    running: Running, machine: Machine, queue: str, step_ms: int
) -> None:
    """Only what was stored can tell that the wall clock is wrong then."""
    machine.pass_time(10 * HOUR_MS)
    send(running, queue, "x")
    running.receive(queue)
    before = running.clock()
    machine.reboot(off_ms=0)
    machine.wall_ms += step_ms
    running.restart()
    assert running.clock() >= before, "time ran backwards"
    machine.pass_time(LEASE_MS + 5_000)
    assert [one.receives for one in running.receive(queue)] == [2]


def test_time_switched_off_counts_after_a_reboot(running: Running, machine: Machine) -> None:
    send(running, QUEUE, "x")
    running.receive(QUEUE)
    machine.reboot(off_ms=LEASE_MS)
    running.restart()
    assert [one.receives for one in running.receive(QUEUE)] == [2]


def test_anchor_of_another_boot_is_not_trusted() -> None:
    anchor = Anchor("first", 1_000_000_000, 500_000)
    assert resume(anchor, boot="first", uptime=3_000_000_000, wall_ms=1) == 502_000
    assert resume(anchor, boot="second", uptime=3_000_000_000, wall_ms=900_000) == 900_000
    assert resume(anchor, boot="second", uptime=3_000_000_000, wall_ms=1) == 500_000
    assert resume(anchor, boot="", uptime=3_000_000_000, wall_ms=900_000) == 900_000


def test_pause_of_the_process_breaks_no_promise(tmp_path: Path) -> None:
    """Stopped for longer than the leases last, in the middle of a load."""

    async def run() -> None:
        load = Load(broker.port, random.Random(1))
        await load.create_queues()
        load.start()
        for _ in range(3):
            await asyncio.sleep(0.5)
            broker.signal(signal.SIGSTOP)
            await asyncio.sleep(2.5)
            broker.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        await load.stop()
        left = await load.drain()
        found = load.history.violations()
        assert not found, {name: where[:5] for name, where in found.items()}
        assert not any(left.values())
        assert not [call for call in load.history.calls if not call.endswith(" acknowledged")]
        assert sum(one.acknowledged for one in load.history.sends) > 20

    broker = BrokerProcess(tmp_path / "data")
    broker.start()
    try:
        asyncio.run(run())
    finally:
        broker.close()
