"""Chains and groups: how a flow of tasks is written, and sent.

    chain(fetch.s(url), parse.s(), store.s()).send()
    group([thumbnail.s(path, size) for size in sizes]).then(publish.s(path)).send()

A flow is sent in one commit, whole: every task of it has its id, every group its rows. What runs later adds nothing but
results, so what follows a task is in its own message, readable, and no coordinator has to live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from headrace.work import keys, limits, workflows
from headrace.work.dispatch import Dispatch
from headrace.work.envelope import NO_ARGUMENTS, Envelope, Joins, Signature, Workflow, new_id
from headrace.work.errors import InvalidOption
from headrace.work.handle import Handle
from headrace.work.workflows import Join, OnFailure, Puts

if TYPE_CHECKING:
    from headrace.work.app import App

T = TypeVar("T")

KEEP_S: Final = 86_400.0
"""How long a flow's result is kept, where its last task does not say."""


class Step:
    """A part of a flow: a call, a chain or a group."""

    __slots__ = ()
    app: App

    def send(self) -> Handle[Any]:
        """Send it, whole, in one commit; each send is a flow of its own. Within `with app.transaction():` with that commit.

        Returns:
            The handle of its last task: a chain's result is that of its last step, a group's that of its join, or, without
            one, the list of its members' results. It is kept for a day, if the task says nothing else.

        Raises:
            InvalidArguments: the first task leaves arguments open.
            InvalidOption: a task of it is unique: it could not be left out. Or more than 200 follow one another.
            NotSupported: there is a group in it, and the broker has no transactions.
            InvalidMessage, MessageTooLong: what follows a task does not fit into its message.
        """
        dispatches, handle = _begun(self)
        if len(dispatches) == 1 and not dispatches[0].puts:
            self.app.sender.send(self.app.tasks[dispatches[0].envelope.task], dispatches[0])
        else:
            self.app.sender.send_together(dispatches)
        return handle

    async def asend(self) -> Handle[Any]:
        """As `send`, without blocking the event loop."""
        dispatches, handle = _begun(self)
        if len(dispatches) == 1 and not dispatches[0].puts:
            await self.app.sender.asend(self.app.tasks[dispatches[0].envelope.task], dispatches[0])
        else:
            await self.app.sender.asend_together(dispatches)
        return handle


@dataclass(frozen=True)
class Call(Step, Generic[T]):
    """A call of a task, to be sent later: made by `task.s(…)` and `task.si(…)`. `ttl_ms`: of its unique lock, if it has one."""

    app: App
    signature: Signature
    ttl_ms: int = limits.UNIQUE_TTL_MS

    @property
    def task(self) -> str:
        return self.signature.envelope.task

    def send(self) -> Handle[T]:
        """Send it, alone: as `task.send`, each time a task of its own."""
        return self.app.sender.send(self.app.tasks[self.task], _alone(self))

    async def asend(self) -> Handle[T]:
        """As `send`, without blocking the event loop."""
        return await self.app.sender.asend(self.app.tasks[self.task], _alone(self))


@dataclass(frozen=True)
class Chain(Step):
    """Tasks one after another; made by `chain`."""

    app: App
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Group(Step):
    """Tasks side by side; made by `group`."""

    app: App
    members: tuple[Step, ...]
    join: Step | None = None
    on_failure: OnFailure = "stop"

    def then(self, step: Step) -> Group:
        """With a task (or a chain) that runs once, when all members have ended: its first open argument is the list of their
        results, in the members' order."""
        joined = chain(self.join, step) if self.join is not None else step
        return Group(self.app, self.members, joined, self.on_failure)


def chain(*steps: Step) -> Chain:
    """Each step starts when the one before it has succeeded, with its result as the first argument that is not given
    (`.si(…)` takes none). A step that fails for good ends the chain: the rest never runs, and the chain's result is that
    error. A group's next step is its join.
    """
    if not steps:
        raise InvalidOption("steps", "none", "a chain has at least one: chain(fetch.s(url), parse.s())")
    joined: list[Step] = []
    for step in _flat(steps):
        before = joined[-1] if joined else None
        if isinstance(before, Group) and before.join is None:
            if isinstance(step, Group):
                raise InvalidOption("steps", "two groups in a row", "put a task between them that takes the list")
            joined[-1] = before.then(step)
        else:
            joined.append(step)
    return Chain(steps[0].app, tuple(joined))


def group(members: Iterable[Step], *, on_failure: OnFailure = "stop") -> Group:
    """Tasks that run side by side.

    Args:
        members: 1 to 10,000 calls, chains or groups with a join.
        on_failure: what follows when a member fails for good. "stop": what joins the group does not run, the flow's result
            is the error; once the member is redriven from the dead letters and succeeds, it goes on. "continue": that
            member's result is None.
    """
    steps = tuple(members)
    if on_failure not in ("stop", "continue"):
        raise InvalidOption("on_failure", repr(on_failure), "it is 'stop' or 'continue'")
    if not 1 <= len(steps) <= limits.GROUP_MEMBERS_MAX:
        raise InvalidOption("members", str(len(steps)), f"a group has 1 to {limits.GROUP_MEMBERS_MAX:,} of them")
    for step in steps:
        last = step.steps[-1] if isinstance(step, Chain) else step
        if isinstance(last, Group) and last.join is None:
            raise InvalidOption("members", "a group without a join", "give the inner one .then(task.s())")
    return Group(steps[0].app, steps, None, on_failure)


def _flat(steps: Iterable[Step]) -> list[Step]:
    return [inner for step in steps for inner in (step.steps if isinstance(step, Chain) else (step,))]


# --- from what was written to what is sent ---


@dataclass(slots=True)
class _Composing:
    """A flow being put together, from its end to its preflight.

    Attributes:
        keep_s: how long the flow's result is kept, where its last task does not say.
        last: the envelope whose result is the flow's; `members`: the tasks of the group that it gathers, if it does.
    """

    now_ms: int
    keep_s: float | None
    puts: Puts = field(default_factory=list)
    last: Envelope | None = None
    members: tuple[str, ...] | None = None

    def step(self, step: Step, flow: Workflow | None, then: tuple[Signature, ...]) -> tuple[Signature, ...]:
        """What is to be sent to start the step. `then`: what its success sends."""
        if isinstance(step, Chain):
            for inner in reversed(step.steps):
                then = self.step(inner, flow, then)
            return then
        if isinstance(step, Group):
            return self._group(step, flow, then)
        assert isinstance(step, Call)
        return (self._call(step, flow, then),)

    def _call(self, call: Call[Any], flow: Workflow | None, then: tuple[Signature, ...]) -> Signature:
        envelope = call.signature.envelope
        if envelope.unique is not None:
            raise InvalidOption(
                "unique", envelope.unique.key, f"{envelope.task} cannot be left out of a chain or group"
            )
        if _depth(then) >= limits.CHAIN_STEPS_MAX:
            reason = f"at most {limits.CHAIN_STEPS_MAX} tasks follow one another; let the last one send what comes then"
            raise InvalidOption("steps", f"more than {limits.CHAIN_STEPS_MAX}", reason)
        keep_s = envelope.result_ttl_s
        first = self.last is None
        envelope = msgspec.structs.replace(
            _anew(envelope, self.now_ms),
            workflow=flow,
            then=then,
            result_ttl_s=self.keep_s if first and keep_s is None else keep_s,
        )
        if first:
            self.last = envelope
        return msgspec.structs.replace(call.signature, envelope=envelope)

    def _group(self, step: Group, flow: Workflow | None, then: tuple[Signature, ...]) -> tuple[Signature, ...]:
        workflow_id = new_id(self.now_ms)
        join = self._join(step, workflow_id, flow, then)
        self.puts += workflows.group_rows(
            workflow_id, len(step.members), Join(join, step.on_failure, workflows.rows_expire_ms(self.now_ms))
        )
        members = [self.step(member, Workflow(workflow_id, index), ()) for index, member in enumerate(step.members)]
        return tuple(signature for started in members for signature in started)

    def _join(self, step: Group, workflow_id: str, flow: Workflow | None, then: tuple[Signature, ...]) -> Signature:
        if step.join is None:
            self.last = Envelope("", workflow_id, NO_ARGUMENTS, result_ttl_s=KEEP_S)
            self.members = tuple(_result_of(member) for member in step.members)
            return Signature("", self.last)
        started = self.step(step.join, flow, then)
        if len(started) != 1:
            raise InvalidOption("join", "a group", "what joins a group is a task, or begins with one")
        signature = started[0]
        joins = Joins(workflow_id, len(step.members), signature.takes)
        envelope = msgspec.structs.replace(signature.envelope, joins=joins)
        if self.last is not None and self.last.id == envelope.id:
            self.last = envelope
        return msgspec.structs.replace(signature, envelope=envelope, takes="")


def _depth(then: Sequence[Signature]) -> int:
    """How many tasks follow one another."""
    depth = 0
    while then:
        depth += 1
        then = [inner for one in then for inner in one.envelope.then]
    return depth


def _result_of(step: Step) -> str:
    """The task whose result is the step's."""
    if isinstance(step, Chain):
        return _result_of(step.steps[-1])
    if isinstance(step, Group):
        return _result_of(step.join) if step.join is not None else ""
    assert isinstance(step, Call)
    return step.task


def composed(step: Step, now_ms: int) -> tuple[list[Dispatch], Envelope, tuple[str, ...] | None]:
    """(what to send in one commit, the envelope whose result is the flow's, the tasks of the members it gathers)."""
    composing = _Composing(now_ms, KEEP_S if step.app.backend.capabilities.state else None)
    started = composing.step(step, None, ())
    assert composing.last is not None
    dispatches = [Dispatch(one.queue, one.envelope, one.delay_ms) for one in started]
    for one in started:
        if one.takes:  # it was written as a later step, and is the first: what it leaves open must have a default
            step.app.tasks[one.envelope.task].arguments.call(one.envelope.args)
    first = dispatches[0]
    dispatches[0] = Dispatch(first.queue, first.envelope, first.delay_ms, puts=tuple(composing.puts))
    return dispatches, composing.last, composing.members


def _begun(step: Step) -> tuple[list[Dispatch], Handle[Any]]:
    app = step.app
    dispatches, last, members = composed(step, app.clock())
    if members is None:
        return dispatches, Handle(app, last.id, task=last.task, kept=last.result_ttl_s is not None)
    return dispatches, GroupHandle(app, last.id, members)


def _alone(call: Call[Any]) -> Dispatch:
    """A send of the call by itself: all its arguments must be there."""
    task = call.app.tasks[call.task]
    task.arguments.call(call.signature.envelope.args)
    now_ms = call.app.clock()
    envelope = _anew(call.signature.envelope, now_ms)
    return Dispatch(call.signature.queue, envelope, call.signature.delay_ms, call.ttl_ms)


def _anew(envelope: Envelope, now_ms: int) -> Envelope:
    """What was written some time ago as it is sent now: a task of its own, whose `expires` counts from now on."""
    since_ms = now_ms - envelope.sent_ms
    expires_ms = envelope.expires_ms + since_ms if envelope.expires_ms is not None else None
    return msgspec.structs.replace(envelope, id=new_id(now_ms), sent_ms=now_ms, expires_ms=expires_ms)


class GroupHandle(Handle[list[Any]]):
    """A group that nothing joins: its result is the list of its members' results, in their order."""

    __slots__ = ("_tasks",)

    def __init__(self, app: App, workflow_id: str, tasks: tuple[str, ...]) -> None:
        super().__init__(app, workflow_id, task="group", kept=True)
        self._tasks = tasks

    def _value(self, result: Any) -> list[Any]:
        super()._value(result)
        rows = self._app.backend.state(keys.members(self.id), limit=len(self._tasks))
        return [self._decoded(task, msgspec.Raw(value)) for task, (_, value) in zip(self._tasks, rows, strict=True)]

    def _decoded(self, task: str, value: msgspec.Raw) -> Any:
        if bytes(value) == b"null":
            return None
        return self._app.tasks[task].arguments.decode_result(value)
