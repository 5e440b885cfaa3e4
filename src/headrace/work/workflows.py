"""Groups and their joins: what a member's end comes to. Pure but for `read`. Chains need nothing here: the next one is
the `then` of the one before.

A group is rows: a counter, what joins it, and a row a member. They are put when the flow is sent, in one commit with its
first tasks, so whatever ends finds them. A member that ends puts its own row and counts down, in one commit with its
acknowledgement; the one that comes to zero sends the join. The counter is compared, so of two that count down at once one
is told to look again; workers commit many members at once, so that seldom happens, and one of two always gets on.

A member counts once: its row is expected to be absent. A member that fails for good stops the group (`on_failure="stop"`):
the flow's result is its error, the counter stays. Redriven from the dead letters, it counts when it succeeds, and the flow
goes on. With "continue" it counts as None at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.work import keys, limits
from headrace.work.envelope import Envelope, Joins, Signature, Workflow
from headrace.work.outcome import ErrorInfo

OnFailure: TypeAlias = Literal["stop", "continue"]
Read: TypeAlias = Callable[[bytes], "bytes | None"]
Puts: TypeAlias = list[tuple[bytes, "bytes | None"]]

NONE: Final = msgspec.Raw(b"null")


class Join(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is sent when all members of a group have ended.

    Attributes:
        signature: the task; its envelope's `joins` names the group. One without a queue is none: a group that nothing
            joins has its results kept under the id of its envelope.
        on_failure: "stop": not sent while a member has failed; "continue": that member's result is None.
        expires_ms: when the group's rows are removed, whatever became of it.
    """

    signature: Signature
    on_failure: OnFailure
    expires_ms: int


class Part(msgspec.Struct):
    """What is to be in the commit that acknowledges: messages, state, and what the state must be.

    Attributes:
        gathered: the group that nothing joins, and whose members have all ended.
        failed: tasks that will never run, whose results are this error: (envelope, error).
    """

    sends: list[Signature] = []
    puts: Puts = []
    expects: Puts = []
    gathered: Envelope | None = None
    failed: list[tuple[Envelope, ErrorInfo]] = []


def group_rows(workflow_id: str, members: int, join: Join) -> Puts:
    """The rows of a group of 1 to 10,000 members, to be put in the commit that sends its flow."""
    counter = keys.group(workflow_id)
    return [
        (counter, b"%d" % members),
        (keys.join(workflow_id), msgspec.json.encode(join)),
        (keys.expiry(join.expires_ms, counter), b""),
    ]


def finished(envelope: Envelope, result: msgspec.Raw | None, read: Read) -> Part:
    """A task has succeeded: what that means for the group that it is a member of, and for the one that it has joined."""
    part = Part()
    if envelope.joins is not None:
        part.puts += _joined(envelope.joins, read)
    if envelope.workflow is not None and not envelope.then:
        _count(part, envelope, envelope.workflow, result or NONE, read)
    return part


def failed(envelope: Envelope, error: ErrorInfo, read: Read) -> Part:
    """A task has ended without a result, for good: the rest of its chain, its group and what follows never run."""
    part = Part()
    _fail(part, envelope, error, read)
    return part


def with_argument(envelope: Envelope, name: str, value: msgspec.Raw) -> Envelope:
    """The envelope with one more argument, before the others; one that is given stays."""
    arguments = {name: value} | msgspec.json.decode(envelope.args, type=dict[str, msgspec.Raw])
    return msgspec.structs.replace(envelope, args=msgspec.Raw(msgspec.json.encode(arguments)))


def gathered(envelope: Envelope, rows: Sequence[tuple[bytes, bytes]]) -> Envelope:
    """A join's envelope with its members' results, in the members' order, as its argument.

    Args:
        rows: what stands under `keys.members`, sorted by key.
    """
    assert envelope.joins is not None
    results = msgspec.json.encode([msgspec.Raw(value) for _, value in rows])
    return with_argument(envelope, envelope.joins.takes, msgspec.Raw(results))


def _count(part: Part, envelope: Envelope, flow: Workflow, result: msgspec.Raw, read: Read) -> None:
    counter, member = keys.group(flow.id), keys.member(flow.id, flow.index)
    left = read(counter)
    if left is None:  # the group has expired
        return
    # Only a member that has failed before can have counted, and a join, which each of its members fails: their rows are read;
    # any row is expected to be absent.
    if (envelope.history or envelope.joins is not None) and read(member) is not None:
        return
    part.expects += [(counter, left), (member, None)]
    part.puts += [(counter, b"%d" % (int(left) - 1)), (member, bytes(result))]
    if int(left) == 1:
        signature = _join(flow.id, read).signature
        if signature.queue:
            part.sends.append(signature)
        else:
            part.gathered = signature.envelope


def _fail(part: Part, envelope: Envelope, error: ErrorInfo, read: Read) -> None:
    _never(part, envelope, error, read)
    flow = envelope.workflow
    if flow is None or read(keys.group(flow.id)) is None:
        return
    join = _join(flow.id, read)
    if join.on_failure == "continue":
        _count(part, envelope, flow, NONE, read)
    else:
        part.failed.append((join.signature.envelope, error))
        _fail(part, join.signature.envelope, error, read)


def _never(part: Part, envelope: Envelope, error: ErrorInfo, read: Read) -> None:
    """All that would have come after it in its chain, the joins of groups that do not start among them."""
    inside = envelope.workflow.id if envelope.workflow is not None else ""
    joins: dict[str, Envelope] = {}
    for signature in envelope.then:
        flow = signature.envelope.workflow
        if flow is not None and flow.id != inside and read(keys.group(flow.id)) is not None:
            joins[flow.id] = _join(flow.id, read).signature.envelope
        part.failed.append((signature.envelope, error))
        _never(part, signature.envelope, error, read)
    for join in joins.values():
        part.failed.append((join, error))
        _never(part, join, error, read)


def _joined(joins: Joins, read: Read) -> Puts:
    """A join has run: nobody needs the rows any more."""
    join = _join(joins.id, read) if read(keys.join(joins.id)) is not None else None
    rows = [keys.group(joins.id), keys.join(joins.id), *(keys.member(joins.id, n) for n in range(joins.count))]
    if join is not None:
        rows.append(keys.expiry(join.expires_ms, keys.group(joins.id)))
    return [(row, None) for row in rows]


def _join(workflow_id: str, read: Read) -> Join:
    row = read(keys.join(workflow_id))
    assert row is not None, f"group {workflow_id} has a counter and no join"
    return msgspec.json.decode(row, type=Join)


def rows_expire_ms(now_ms: int) -> int:
    """As long as its messages may live, twice: a member may wait that long, and then its join."""
    return now_ms + 2 * limits.RETENTION_MS
