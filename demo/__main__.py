"""`python -m demo`: run the whole demo; exit code 0 if every promise was kept, 1 if not."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from demo import ledger, view
from demo.broker import BrokerProcess, Watcher, prepare
from demo.flights import FLIGHTS, NoData, archive
from demo.ledger import DELIVERED
from demo.pipeline import TOPIC, PipelineProcess, Results, WindowAudit, audit_windows, one_shot
from demo.view import LiveView, PlainView, Snapshot, View, WorkerState
from demo.workers import SENT_TO, WORK, Worker, consume, produce, read_flights

TICK_S: Final = 0.25
RATE_WINDOW: Final = 8  # ticks over which a rate is taken
END_TIMEOUT_S: Final = 20
LEDGER_WIDTH: Final = 100
QUIET_TICKS: Final = 4  # the queue must be empty for so long: counts and answers may cross


@dataclass
class Crew:
    """The processes and what they share."""

    workers: list[Worker] = field(default_factory=list)
    processes: list[BaseProcess] = field(default_factory=list)
    producing: list[BaseProcess] = field(default_factory=list)

    def alive(self) -> bool:
        """Whether no process has failed. Raises RuntimeError naming one that has."""
        for process in self.processes:
            if process.exitcode not in (None, 0):
                raise RuntimeError(f"{process.name} ended with exit code {process.exitcode}")
        return True

    def produced(self) -> bool:
        return all(process.exitcode == 0 for process in self.producing)


class Rates:
    """Counts over the last ticks, as rates."""

    def __init__(self) -> None:
        self._history: list[tuple[float, list[int]]] = []

    def add(self, counts: list[int]) -> list[float]:
        now = time.monotonic()
        self._history = [*self._history[-RATE_WINDOW:], (now, counts)]
        then, before = self._history[0]
        return [(new - old) / max(1e-9, now - then) for new, old in zip(counts, before, strict=True)]


@dataclass
class Demo:
    """One run. `run` sequences it; the exit stack of `_crew` ends every process, whatever happens."""

    folder: Path
    console: Console
    view: View
    flights: int
    kills: int
    pipeline_kills: int
    rate_max: float
    clients: list[str]
    time_limit_s: float

    def run(self) -> bool:
        """True if every promise was kept."""
        started = time.monotonic()
        broker = BrokerProcess(self.folder)
        pipeline = PipelineProcess(self.folder, broker.endpoint)
        try:
            with self.view:
                took = broker.start()
                self.view.tell(f"broker up on {broker.endpoint} after {took:.2f} s (pid {broker.pid})")
                prepare(broker.endpoint, inbox=SENT_TO, work=WORK, topic=TOPIC)
                results = Results(broker.endpoint)
                pipeline.start()
                self._stream(broker, pipeline, results, started)
                late = results.late()
                results.close()
        finally:
            pipeline.stop()
            broker.stop()
        self.console.print("Comparing the ledgers of all workers, and every window ...", style="dim")
        events = list(ledger.read(self.folder))
        audit = ledger.audit(events, flights=self.flights)
        windows = _audit_windows(events, results, late)
        view.print_ledger(
            self.console, audit, windows, kills=self.kills + self.pipeline_kills, seconds=time.monotonic() - started
        )
        return audit.holds and windows.holds

    def _stream(self, broker: BrokerProcess, pipeline: PipelineProcess, results: Results, started: float) -> None:
        watcher = Watcher(broker.endpoint, WORK)
        kill_at = _spread(self.kills, self.flights)
        kill_pipeline_at = _spread(self.pipeline_kills, self.flights * 2 // 3)
        quiet = 0
        rates = Rates()
        with self._crew(broker.endpoint) as crew:

            def look() -> Snapshot:
                results.read()
                return self._snapshot(crew, watcher, rates, results, started)

            while quiet < QUIET_TICKS and crew.alive():
                time.sleep(TICK_S)
                broker.check()
                pipeline.check()
                snapshot = look()
                self.view.show(snapshot)
                if kill_pipeline_at and snapshot.accepted >= kill_pipeline_at[0]:
                    del kill_pipeline_at[0]
                    self._kill_pipeline(pipeline, look)
                if kill_at and snapshot.accepted >= kill_at[0]:
                    del kill_at[0]
                    self._kill_broker(broker, look)
                gauge = snapshot.gauge
                empty = gauge is not None and gauge.waiting == gauge.in_flight == 0
                windowed = snapshot.windowed >= snapshot.processed
                quiet = quiet + 1 if empty and windowed and crew.produced() else 0
                if time.monotonic() > started + self.time_limit_s:
                    self.view.tell("out of time: what was not processed counts as lost", style="bold red")
                    break
        watcher.close()

    def _kill_broker(self, broker: BrokerProcess, look: Callable[[], Snapshot]) -> None:
        broker.kill()
        self.view.tell("broker killed with SIGKILL, in the middle of its work", style="bold red")
        self._let_it_be_seen(look)
        took = broker.start()
        self.view.tell(f"broker up again after {took:.2f} s (pid {broker.pid}), same data folder", style="bold green")

    def _kill_pipeline(self, pipeline: PipelineProcess, look: Callable[[], Snapshot]) -> None:
        pipeline.kill()
        self.view.tell("pipeline killed with SIGKILL, in the middle of its work", style="bold red")
        self._let_it_be_seen(look)
        pipeline.start()
        self.view.tell(f"pipeline started again (pid {pipeline.pid}); its state is in the broker", style="bold green")

    def _let_it_be_seen(self, look: Callable[[], Snapshot]) -> None:
        for _ in range(4):
            time.sleep(TICK_S)
            self.view.show(look())

    def _snapshot(self, crew: Crew, watcher: Watcher, rates: Rates, results: Results, started: float) -> Snapshot:
        counts = [worker.counts[worker.place] for worker in crew.workers]
        states = [
            WorkerState(worker.name, worker.client, count, rate)
            for worker, count, rate in zip(crew.workers, counts, rates.add(counts), strict=True)
        ]
        return Snapshot(
            elapsed_s=time.monotonic() - started,
            total=self.flights,
            producers=[state for state in states if state.name.startswith("producer")],
            consumers=[state for state in states if state.name.startswith("consumer")],
            gauge=watcher.read(),
            windows=results.windows,
            windowed=results.flights,
        )

    @contextmanager
    def _crew(self, endpoint: str) -> Iterator[Crew]:
        """Start every process; at the end let them finish their turn. On an error or Ctrl-C end them at once."""
        spawn = multiprocessing.get_context("spawn")
        crew, finished = Crew(), spawn.Event()
        counts = spawn.Array("q", 2 * len(self.clients))
        chunks = spawn.Queue(maxsize=64)
        reader: BaseProcess = spawn.Process(
            target=read_flights, args=(chunks, self.flights, len(self.clients)), name="reader"
        )
        crew.processes.append(reader)
        for role, target in (("producer", produce), ("consumer", consume)):
            for number, client in enumerate(self.clients, start=1):
                place = len(crew.workers)
                worker = Worker(f"{role} {number}", place, client, endpoint, self.folder, counts, finished)
                arguments = (worker, chunks, self.rate_max) if target is produce else (worker,)
                process: BaseProcess = spawn.Process(target=target, args=arguments, name=worker.name)
                crew.workers.append(worker)
                crew.processes.append(process)
                crew.producing += [process] if target is produce else []
        try:
            for process in crew.processes:
                process.start()
            yield crew
        except BaseException:
            _end(crew.processes, within_s=0)
            raise
        finished.set()
        reader.terminate()  # it holds no part of the ledger, and may wait for producers that have gone
        _end(crew.processes, within_s=END_TIMEOUT_S)


def _spread(count: int, total: int) -> list[int]:
    """At how many accepted flights to do something `count` times, evenly spread over `total`."""
    return [total * (number + 1) // (count + 1) for number in range(count)]


def _audit_windows(events: list[ledger.Event], results: Results, late: int) -> WindowAudit:
    rows = {event.id: event.row for event in events if event.kind == DELIVERED}
    return audit_windows(results.windows, one_shot(rows.values()), late=late)


def _end(processes: list[BaseProcess], *, within_s: float) -> None:
    """Wait for the processes; those that go on after `within_s` seconds are terminated."""
    deadline = time.monotonic() + within_s
    for process in processes:
        if process.pid is None:
            continue
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.terminate()
            process.join()


@click.command()
@click.option("--flights", default=FLIGHTS, show_default=True, help="How many flights to stream.")
@click.option("--kills", default=1, show_default=True, help="How often the broker is killed on the way.")
@click.option("--pipeline-kills", default=1, show_default=True, help="How often the pipeline is killed on the way.")
@click.option("--rate", default=5_000.0, show_default=True, help="Flights a second that each producer sends at most.")
@click.option("--clients", default="boto3,boto3,native", show_default=True, help="One producer and one consumer each.")
@click.option("--time-limit", default=300.0, show_default=True, help="Seconds after which the demo gives up.")
@click.option("--data", default="demo/data", show_default=True, help="Folder of the run; emptied at the start.")
@click.option("--plain", is_flag=True, help="Lines instead of the live picture, as without a terminal.")
def main(
    flights: int,
    kills: int,
    pipeline_kills: int,
    rate: float,
    clients: str,
    time_limit: float,
    data: str,
    plain: bool,
) -> None:
    """Publish a year of real flights, consume them and window them, kill broker and pipeline, and count what arrived."""
    console = Console()
    console.width = max(console.width, LEDGER_WIDTH) if not console.is_terminal else console.width
    folder = Path(data).resolve()
    try:
        archive()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shown: View = LiveView(console) if console.is_terminal and not plain else PlainView(console)
        demo = Demo(folder, console, shown, flights, kills, pipeline_kills, rate, clients.split(","), time_limit)
        sys.exit(0 if demo.run() else 1)
    except (NoData, RuntimeError) as failed:
        console.print(str(failed), style="red", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
