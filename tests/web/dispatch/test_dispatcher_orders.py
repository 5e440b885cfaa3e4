"""Whatever happens to workers, links and clients, in whatever order: each request is answered once, and justly."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from headrace.http.exchange import DONE
from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.dispatch.limits import DELIVERIES_MAX, ISOLATION_S
from headrace.web.dispatch.queued_request import QueuedRequest
from headrace.web.dispatch.worker_pool import WorkerProcess
from headrace.web.ipc.worker_link import WorkerLink
from tests.web.dispatch.dispatch_simulation import End, Loop, Process, Server, Transport
from tests.web.fakes import FakeExchange

STEPS = 200


class Noting(Dispatcher):
    """Knows who has got what."""

    given: dict[str, list[End]]

    def _give(self, worker: WorkerProcess, link: WorkerLink, queued: QueuedRequest) -> None:
        end = cast("Transport", link.transport).end
        self.given.setdefault(queued.exchange.target, []).append(end)
        super()._give(worker, link, queued)


TIMES_S = (0.0, 0.003, 0.003, 0.03, 0.03, 0.3, 1.2, 6.0)


class World:
    """An edge's dispatcher, its clients and workers. `step` lets something happen."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.loop = Loop()
        self.hung: list[int] = []
        self.dispatcher = Noting(
            loop=self.loop,
            now_s=self.loop.time,
            chance=lambda: 0.0,
            on_hung=self.hung.append,
            spool_folder=folder,
            queue_size=30,
            request_timeout_s=self.dice.choice([0.0, 5.0]),
        )
        self.server = Server(self.dispatcher)
        self.generation = 1
        self.crowd = self.dice.choice([2, 5, 12, 40])
        self.processes: list[Process] = []
        self.exchanges: list[FakeExchange] = []
        self.unanswered: list[FakeExchange] = []
        self.given = self.dispatcher.given = {}
        self.begun: Counter[str] = Counter()
        self.log: list[str] = []
        acts = [
            (self.ask, 12),
            (self.leave_client, 2),
            (self.half_close, 1),
            (self.start_process, 3),
            (self.connect, 30),
            (self.accept, 40),
            (self.read, 80),
            (self.hear, 60),
            (self.begin, 15),
            (self.answer, 10),
            (self.begin_answer, 3),
            (self.give_up, 1),
            (self.garble, 5),
            (self.die, 5),
            (self.kill_hung, 3),
            (self.retire, 3),
            (self.reload, 1),
            (self.pass_time, 6),
        ]
        self.acts = [act for act, _ in acts]
        self.weights = list(
            itertools.accumulate(weight * self.dice.choice([0.2, 1, 1, 4]) for _, weight in acts)
        )  # each run is of another kind
        for _ in range(self.dice.randrange(4)):
            self.start_process()

    # What is there to choose from

    def live(self) -> list[Process]:
        return [process for process in self.processes if process.lives]

    def ends(self) -> list[End]:
        return [end for process in self.processes for end in process.ends if not end.over]

    def live_ends(self) -> list[End]:
        return [end for process in self.live() for end in process.ends if end.lives]

    # What may happen

    def step(self) -> None:
        while True:
            [act] = self.dice.choices(self.acts, cum_weights=self.weights)
            if done := act():  # else there was nobody for it
                break
        self.log.append(f"{act.__name__} {done}")
        self.update_link()

    def update_link(self) -> None:
        self.loop.run()
        self.check()

    def ask(self) -> str:
        if len(self.unanswered) > self.crowd:
            return ""
        method, headers, upgrade = self.dice.choice(
            [
                ("GET", {}, b""),
                ("GET", {}, b""),
                ("GET", {}, b"websocket"),
                ("POST", {}, b""),
                ("POST", {"Idempotency-Key": "1"}, b""),
            ]
        )
        body = b"x" if method == "POST" else b""
        exchange = FakeExchange(method, f"/{len(self.exchanges)}", headers, body=body, upgrade=upgrade)
        exchange.priority = self.dice.choice([0, 1, 1, 2])
        self.exchanges.append(exchange)
        self.unanswered.append(exchange)
        self.dispatcher(exchange)
        return f"{method} {exchange.target} {upgrade.decode()}"

    def leave_client(self) -> str:
        waiting = self.unanswered
        if not waiting:
            return ""
        exchange = self.dice.choice(waiting)
        exchange.leave()
        return exchange.target

    def half_close(self) -> str:
        waiting = [exchange for exchange in self.unanswered if not exchange.answered]
        if not waiting:
            return ""
        exchange = self.dice.choice(waiting)
        exchange.half_closed = True
        exchange._tell()
        return exchange.target

    def start_process(self) -> str:
        if len(self.live()) >= 4:
            return ""
        interface = self.dice.choice(["wsgi", "wsgi", "asgi"]) if not self.processes else self.processes[0].interface
        process = Process(
            self.loop,
            7_000_001 + len(self.processes),
            generation=self.generation,
            interface=interface,
            threads=self.dice.choice([1, 2, 3]) if interface == "wsgi" else 1,
            has_control_thread=interface == "wsgi" and self.dice.random() < 0.7,
        )
        self.processes.append(process)
        process.connect()
        return f"{process.pid} {interface} {process._sockets}"

    def connect(self) -> str:
        before = len(self.ends())
        for process in self.live():
            process.connect()
        return str(len(self.ends()) - before or "")

    def accept(self) -> str:
        waiting = [end for end in self.ends() if end.link is None]
        return self.accept_all(waiting[:1])

    def accept_all(self, ends: list[End]) -> str:
        for end in ends:
            end.accept(self.server)
        return ", ".join(map(name, ends))

    def read(self) -> str:
        ends = [end for end in self.ends() if end.link is not None and (end.out or end.hung_up)]
        if not ends:
            return ""
        end = self.dice.choice(ends)
        pieces = self.dice.choice([1, 1, 2, 9])
        end.read(pieces)
        return f"{name(end)} {pieces} pieces"

    def hear(self) -> str:
        ends = self.live_ends()
        if not ends:
            return ""
        end = self.dice.choice([end for end in ends if end.arrived] or ends)
        end.hear()
        end.hang_up_if_done()
        return name(end)

    def begin(self) -> str:
        ends = [end for end in self.live_ends() if end.inbox]
        return self.begin_on(self.dice.choice(ends)) if ends else ""

    def begin_on(self, end: End) -> str:
        job = end.begin()
        if job is None:
            return ""
        self.begun[job.target] += 1
        assert job.repeatable or self.begun[job.target] == 1, f"{job.target} was begun twice"
        return f"{job.target} on {name(end)}"

    def answer(self) -> str:
        ends = [end for end in self.live_ends() if end.running]
        if not ends:
            return ""
        end = self.dice.choice(ends)
        job = self.dice.choice(end.running)
        if job.upgrade and not job.started and end.process.interface == "asgi":
            end.start(job)
        else:
            end.answer(job, long=self.dice.random() < 0.3)
        end.hang_up_if_done()
        return f"{job.target} on {name(end)}"

    def begin_answer(self) -> str:
        ends = [end for end in self.live_ends() if any(not job.started for job in end.running)]
        if not ends:
            return ""
        end = self.dice.choice(ends)
        job = next(job for job in end.running if not job.started)
        if job.upgrade and end.process.interface == "wsgi":
            return ""
        end.start(job)
        return f"{job.target} on {name(end)}"

    def give_up(self) -> str:
        ends = [end for end in self.live_ends() if end.running]
        if not ends:
            return ""
        end = self.dice.choice(ends)
        end.give_up(end.running[0])
        return name(end)

    def garble(self) -> str:
        """A bug of a worker: the edge hangs up, and the process lives."""
        ends = self.live_ends()
        if not ends:
            return ""
        end = self.dice.choice(ends)
        end.garbled = True
        end.send(99, 0)
        return name(end)

    def die(self) -> str:
        live = self.live()
        if not live:
            return ""
        process = self.dice.choice(live)
        process.die(cut=self.dice.random() < 0.2)
        return str(process.pid)

    def kill_hung(self) -> str:
        for process in self.live():
            if process.pid in self.hung:
                process.leave()
                if self.dice.random() < 0.5:
                    process.die(cut=False)
                return str(process.pid)
        return ""

    def retire(self) -> str:
        live = self.live()
        if not live:
            return ""
        process = self.dice.choice(live)
        process.leave()
        return str(process.pid)

    def reload(self) -> str:
        self.generation += 1
        for process in self.live():
            if self.dice.random() < 0.7:
                process.leave()
        return self.start_process()

    def pass_time(self) -> str:
        seconds = self.dice.choice(TIMES_S)
        self.loop.pass_time(seconds)
        return str(seconds)

    # What must hold

    def check(self) -> None:
        dispatcher = self.dispatcher
        streams = [queued for link in self.server.links for queued in link.streams.values()]
        assert len(set(streams)) == len(streams), "a request is with one worker"
        assert set(streams) == dispatcher.running
        self.check_counts()
        assert not dispatcher._admission.length or dispatcher.workers.pick() is None, (
            "while somebody waits, no room is left"
        )
        assert not dispatcher._suspects or dispatcher.workers.pick_empty() is None, "nor a worker of their own"
        dispatcher._admission._check_invariants()
        for exchange in self.unanswered:
            self.check_exchange(exchange)
        self.unanswered = [exchange for exchange in self.unanswered if exchange.stage is not DONE]

    def check_counts(self) -> None:
        workers = set(self.dispatcher.workers)
        for link in self.server.links:
            assert link.busy == sum(not queued.tunnel for queued in link.streams.values())
            if link.hello is not None and not link.is_control:
                workers.add(link.worker)
        for worker in workers:
            assert worker.in_flight == sum(slot.busy for slot in worker.links)
            assert set(worker.free) == {slot for slot in worker.links if slot.listed}
            if worker.isolated:
                assert worker in self.dispatcher._isolated.values()

    def check_exchange(self, exchange: FakeExchange) -> None:
        if exchange.stage is not DONE:
            queued = ticket_of(exchange)
            places = (queued.waiting, queued in self.dispatcher._suspects, queued in self.dispatcher.running)
            assert sum(places) == 1, f"{exchange.target} is at {places}"
            assert queued.kills <= self.deaths_with(exchange)
            self.check_alone(queued)
        elif exchange.whole and exchange.status == 200:
            assert exchange.body == exchange.target.encode()
        elif exchange.whole and exchange.status == 502 and exchange.problem["type"] == "poison":
            assert self.deaths_with(exchange) >= DELIVERIES_MAX

    def deaths_with(self, exchange: FakeExchange) -> int:
        """How many workers have ended that had the request, by now or before; or have lost the link by a fault of theirs."""
        ends = self.given.get(exchange.target, [])
        return len({end if end.garbled else end.process for end in ends if end.garbled or not end.process.lives})

    def check_alone(self, queued: QueuedRequest) -> None:
        if queued.kills < DELIVERIES_MAX - 1 or queued not in self.dispatcher.running:
            return
        if self.loop.now_s >= queued.given_s + ISOLATION_S:
            return
        pid = queued.link.hello.pid  # type: ignore[union-attr]
        links = [link for link in self.server.links if link.hello is not None and link.hello.pid == pid]
        assert sum(link.busy for link in links) == 1, f"{queued.exchange.target} is a suspect, and not alone"

    # The end

    def finish(self) -> None:
        """Everybody works on, nobody comes; then nothing is left."""
        for round_number in range(200):
            self.work_on(round_number)
            if all(exchange.stage is DONE for exchange in self.exchanges) and not self.dispatcher.running:
                break
        statistics = self.dispatcher.statistics()
        assert (statistics.in_flight, statistics.queue_length) == (0, 0)
        assert not self.dispatcher._suspects and not self.dispatcher._isolated
        assert all(exchange.stage is DONE for exchange in self.exchanges)
        self.end_processes()

    def work_on(self, round_number: int) -> None:
        self.generation += not round_number
        if round_number % 20 == 0 or not self.live():
            self.start_process()
        self.connect()
        for process in self.processes:
            process.end_if_done()
        self.accept_all([end for end in self.ends() if end.link is None])
        for end in self.ends():
            end.read(9)
            self.update_link()
        for end in self.live_ends():
            end.hear()
            while end.inbox and self.begin_on(end):
                pass
            for job in tuple(end.running):
                end.answer(job)
            end.hang_up_if_done()
        self.kill_hung()
        self.loop.pass_time(0.03)
        self.update_link()

    def end_processes(self) -> None:
        for process in self.live():
            process.die(cut=False)
        for _ in range(100):
            self.accept_all([end for end in self.ends() if end.link is None])
            for end in self.ends():
                end.read(9)
            self.update_link()
        dispatcher = self.dispatcher
        assert not self.server.links and not dispatcher.control_links
        assert not tuple(dispatcher.workers) and not dispatcher.workers._free and not dispatcher.prefetch_manager._asked


def name(end: End) -> str:
    return f"{end.process.pid}.{end.number}"


def ticket_of(exchange: FakeExchange) -> QueuedRequest:
    """Who is told of the client."""
    queued = exchange.notify.__self__  # type: ignore[union-attr]
    assert isinstance(queued, QueuedRequest)
    return queued


@pytest.mark.parametrize("batch", range(4))
def test_events_in_any_order(tmp_path: Path, batch: int) -> None:
    for seed in range(batch * 100, batch * 100 + 100):
        run(seed, tmp_path)


def run(seed: int, folder: Path) -> None:
    world = World(seed, folder)
    try:
        for _ in range(STEPS):
            world.step()
        world.finish()
    except BaseException:
        world.log += [f"{target}: {' '.join(map(name, ends))}" for target, ends in world.given.items()]
        print(f"seed {seed}:", *world.log, sep="\n  ")
        raise
