"""Several members of one pipeline in one process: each turns when it is told to, and dies when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import headrace
from headrace.stream import plan
from headrace.stream.pipelines import Pipeline
from headrace.stream.runner import state_keys
from headrace.stream.runner.commit import Committer, TakenOver
from headrace.stream.runner.job import Job, Settings
from headrace.stream.runner.membership import Member, Membership
from headrace.stream.runner.runner import prepare_queues
from headrace.stream.runner.session import Session
from headrace.stream.runner.source_set import Wakeup
from headrace.stream.runner.store import BrokerStore, RetryPolicy


class Clocked(BrokerStore):
    """Its time is moved by hand, ahead of the broker's."""

    later_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.later_ms


class One:
    """A member and, while it runs the pipeline, its session."""

    def __init__(self, client: headrace.Client, job: Job, store: Clocked, name: str, alive: Callable[[Member], bool]):
        self._client, self._job, self._store = client, job, store
        self.member = Member(name, "here", 1, 1)
        self.membership = Membership(store, job.pipeline.name, member=self.member, alive=alive)
        self.session: Session | None = None
        self.rows = 0

    def ready(self) -> bool:
        """Whether it has a session: it joins if there is a place."""
        if self.session is None and self.membership.take(shards=self._job.shards):
            self._open()
        return self.session is not None

    def turn(self) -> bool:
        """As the runner does it. Whether something was done, be it that others have come or gone."""
        if self.session is not None and self.membership.drop_lost():
            self.drop()
        try:
            if not self.ready():
                return False
            assert self.session is not None
            rows = self.session.turn()
        except TakenOver:
            self.drop()
            return True
        self.rows += 0 if rows is None else rows.num_rows
        return rows is not None

    def come_back(self) -> None:
        """It was thought dead, and goes on. Raises TakenOver, at the latest when it wants to commit."""
        while self.session is not None:
            self.session.turn()

    def drop(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def leave(self) -> None:
        self.drop()
        self.membership.leave()

    def _open(self) -> None:
        committer = Committer(self._store, self._job.pipeline.name, self.membership.slot, self.membership.owners)
        retry = RetryPolicy(5, threading.Event())
        self.session = Session(self._job, self._store, self._client, committer, wakeup=Wakeup(), retry=retry)
        try:
            self.session.open()
        except BaseException:
            self.drop()
            raise


class Fleet:
    """The members of a pipeline by name; `killed`: whose process is dead, as far as the others know."""

    def __init__(self, client: headrace.Client, pipeline: Pipeline, *, batch_rows: int = 50) -> None:
        self.client = client
        self.job = Job(pipeline.plan, pipeline.physical, Settings(batch_rows=batch_rows, until="idle"))
        self.store = Clocked(client, state_keys.state_name(pipeline.name), RetryPolicy(5, threading.Event()))
        self.killed: set[str] = set()
        self.members: dict[str, One] = {}
        prepare_queues(self.job, client)

    def join(self, name: str) -> One:
        self.members[name] = One(self.client, self.job, self.store, name, lambda one: one.id not in self.killed)
        self.members[name].ready()
        return self.members[name]

    def leave(self, name: str) -> None:
        self.members.pop(name).leave()

    def kill(self, name: str) -> None:
        """At once: what it has claimed stays claimed."""
        self.killed.add(name)
        self.members.pop(name).drop()

    def turns(self, *names: str, rounds: int = 1) -> None:
        for _ in range(rounds):
            for name in names or list(self.members):
                self.members[name].turn()

    def settle(self, *names: str) -> None:
        """Until none of them has anything to do."""
        some = [self.members[name] for name in names or list(self.members)]
        idle = 0
        while idle < 3:
            if sum(one.turn() for one in some):  # all of them, not until one has done something
                idle = 0
                continue
            sessions = [one.session for one in some if one.session is not None]
            quiet = all(session.rested for session in sessions) and not self._waiting()
            idle = idle + 1 if quiet else 0
            sessions[0].wait(0.01)

    def _waiting(self) -> int:
        """Messages that nobody has claimed: a read that is under way does not know of them."""
        queues = [source.queue for source in self.job.sources if isinstance(source, plan.QueueSource)]
        return sum(self.client.queue(queue).counts().visible for queue in queues)

    def close(self) -> None:
        for name in list(self.members):
            self.leave(name)


@contextmanager
def fleet(client: headrace.Client, pipeline: Pipeline, *names: str, batch_rows: int = 50) -> Iterator[Fleet]:
    made = Fleet(client, pipeline, batch_rows=batch_rows)
    try:
        for name in names:
            made.join(name)
        yield made
    finally:
        made.close()
