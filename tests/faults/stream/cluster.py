"""A broker and the pipelines of one file, to be killed, frozen, started again; and what has to be true at the end."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import headrace
from headrace.queue import operations as ops
from headrace.queue.model import Message, arn_of
from tests.broker_process import BrokerProcess
from tests.faults.stream.nursery import Fault, Process, command_line

PAGE = 10_000


class Cluster:
    """Keeps so many processes of each pipeline alive as were started: one that is killed gets a successor.

    Args:
        text: the pipelines' file; `FOLDER` in it is replaced.
        chance: who is killed.
        limits: see Process.
    """

    def __init__(
        self, folder: Path, text: str, chance: random.Random, *, limits: Mapping[str, float] | None = None
    ) -> None:
        self.folder = folder
        self.file = folder / "pipelines.py"
        self.file.write_text(text.replace("FOLDER", str(folder)))
        self.data = folder / "data"
        self.target = f"unix://{self.data}/headrace.sock"
        self.kills: Counter[str] = Counter()
        self.processes: list[tuple[str, Process]] = []
        self.limits = limits
        self._chance = chance
        self._born: dict[str, Callable[[], Process]] = {}
        self.broker = self._started_broker()

    def start(self, name: str, *more: str) -> None:
        """A process of the pipeline; it and its successors get `more` arguments."""
        self.add(name, lambda: self.process(name, *more))

    def add(self, name: str, born: Callable[[], Process]) -> None:
        """A process that is killed like the pipelines; `born` makes it, and its successors."""
        self._born[name] = born
        self.processes.append((name, born()))

    def process(self, name: str, *more: str, fault: Fault | None = None) -> Process:
        """A process of the pipeline that is nobody's successor, and gets none."""
        run = ["stream", "run", f"{self.file}:{name}", "--broker", self.target, "--log-format", "json"]
        return self.run(*run, *self._batch(more), *more, fault=fault, log=name)

    def run(self, *arguments: str, log: str, fault: Fault | None = None) -> Process:
        """Any command of headrace."""
        return Process(command_line, *arguments, log=self.folder / f"{log}.log", fault=fault, limits=self.limits)

    def die(self, name: str, fault: Fault, *more: str) -> None:
        """Let the pipeline run until the fault has killed it."""
        one = self.process(name, *more, fault=fault)
        code = one.wait()
        assert code == -signal.SIGKILL, (code, fault, one.text)
        self.kills[name] += 1

    def kill_one(self, name: str | None = None) -> None:
        """`kill -9` of a pipeline (of any, without a name), and a successor."""
        of_name = [place for place, (known, _) in enumerate(self.processes) if name in (None, known)]
        known, victim = self.processes.pop(self._chance.choice(of_name))
        code = victim.end(signal.SIGKILL)
        assert code == -signal.SIGKILL, (code, victim.text)
        self.kills[known] += 1
        self.processes.append((known, self._born[known]()))

    def kill_last(self, name: str) -> None:
        """`kill -9` of all of the pipeline's processes; nobody follows."""
        for known, one in self.processes:
            if known == name:
                one.close()
        self.processes = [(known, one) for known, one in self.processes if known != name]

    def kill_broker(self) -> None:
        end_broker(self.broker)
        self.kills["broker"] += 1
        self.broker = self._started_broker()

    def kill_any(self) -> None:
        """A pipeline, the broker, or both at once."""
        drawn = self._chance.random()
        if drawn < 0.25:
            self.kill_broker()
        elif drawn < 0.9:
            self.kill_one()
        else:
            end_broker(self.broker)
            self.kill_one()
            self.kills["broker"] += 1
            self.broker = self._started_broker()

    def stop(self) -> None:
        """TERM to every process. Each leaves in order; one that has only just begun, by the signal; one that is just trying
        to reach a broker that was killed says so."""
        for _, one in self.processes:
            one.send(signal.SIGTERM)
        for _, one in self.processes:
            code = one.wait()
            assert code in (0, -signal.SIGTERM) or "Error: no broker at" in one.text, (code, one.text)
        self.processes = []

    def finish(self, name: str, until: str, *more: str) -> None:
        """Let the pipeline process what is left."""
        one = self.process(name, "--until", until, *more)
        code = one.wait(600)
        assert code == 0, (code, one.text)

    def close(self) -> None:
        for _, one in self.processes:
            one.close()
        end_broker(self.broker)

    def _started_broker(self) -> BrokerProcess:
        one = BrokerProcess(self.data)
        one.wait_ready()
        return one

    def _batch(self, more: Sequence[str]) -> list[str]:
        if "--batch-rows" in more:
            return []
        return ["--batch-rows", str(self._chance.choice([20, 200, 200, 1_000, 1_000, 100_000]))]


@contextmanager
def cluster(
    folder: Path, text: str, chance: random.Random, *, limits: Mapping[str, float] | None = None
) -> Iterator[Cluster]:
    one = Cluster(folder, text, chance, limits=limits)
    try:
        yield one
    finally:
        one.close()


def end_broker(broker: BrokerProcess) -> None:
    broker.signal(signal.SIGKILL)
    broker.wait_end()
    assert broker.process.stderr is not None
    broker.process.stderr.close()


def left(client: headrace.Client, queue: str) -> int:
    """How many messages nobody has taken yet."""
    return client.queue(queue).counts().visible


def messages_of(client: headrace.Client, queue: str) -> Iterator[Message]:
    """All of a queue, in its order; they stay."""
    after = 0
    while page := client.call(ops.Peek(arn_of(queue), PAGE, after)):
        for one in page:
            yield one.message
        after = page[-1].message.seq


def assert_same(found: Counter[Any], expected: Counter[Any], what: str) -> None:
    """Equal as multisets; else what is missing and what is too much."""
    missing, doubled = expected - found, found - expected
    assert not missing and not doubled, (
        f"{what}: {missing.total()} missing, {doubled.total()} too many; "
        f"missing {_some(missing)}, too many {_some(doubled)}"
    )


def _some(items: Counter[Hashable]) -> list[Any]:
    return sorted(items.items(), key=repr)[:5]
