"""Calls of the right types and any values: each is answered, or refused as the caller's fault; the broker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headrace
from headrace.errors import CallerError
from headrace.queue import operations as ops
from headrace.queue.model import QueueSettings, TopicSettings, arn_of, topic_arn_of
from tests.native.served import ServedBroker

ARNS = [arn_of("a"), arn_of("b.fifo"), arn_of("missing")]
NUMBERS = st.sampled_from([-(2**62), -1, 0, 1, 2, 10_000, 10_001, 2**31, 2**40, 2**62]) | st.integers(-(2**62), 2**62)
QUEUES = st.sampled_from(ARNS) | st.text(max_size=100)
VALUES = NUMBERS | st.text(max_size=5) | st.booleans() | st.none() | st.dictionaries(st.text(max_size=5), NUMBERS)
NAMES = st.sampled_from([*QueueSettings.__struct_fields__, *TopicSettings.__struct_fields__, "nonsense"])
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)
RULES = st.recursive(
    VALUES,
    lambda rules: (
        st.lists(rules, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$or", "numeric", "prefix", "anything-but", "exists"]), rules, max_size=2
        )
    ),
    max_leaves=8,
)

GIVEN = {
    "queue": QUEUES | st.just(topic_arn_of("t")),
    "topic": st.sampled_from([topic_arn_of("t"), topic_arn_of("u.fifo"), topic_arn_of("missing")]) | QUEUES,
    "filter": st.none() | st.dictionaries(st.text(max_size=5), RULES, max_size=3),
    "scope": st.sampled_from(["MessageAttributes", "MessageBody", "nonsense"]),
    "settings": FIELDS,
    "queues": st.lists(QUEUES, max_size=3),
    "facts": FIELDS,
    "stored": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
}

st.register_type_strategy(int, NUMBERS)
OPERATIONS = st.one_of(
    *[
        st.builds(kind, **{name: GIVEN.get(name, ...) for name in kind.__struct_fields__})  # ...: as its type says
        for kind in get_args(ops.AnyOperation)
    ]
)


@pytest.fixture(scope="module", params=["memory, over HTTP", "SQLite, embedded"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[headrace.Client]:
    folder = tmp_path_factory.mktemp("hostile")
    served = ServedBroker(folder) if "HTTP" in request.param else None
    with headrace.connect(served.url if served else folder, patience=0, cooldowns=False) as client:
        client.queue("b.fifo", create=True, fifo=True)
        client.topic("t", create=True, retention=60)
        client.topic("u.fifo", create=True, fifo=True)
        yield client
    if served:
        served.stop()


@given(OPERATIONS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values_are_answered_or_refused(client: headrace.Client, operation: ops.Operation) -> None:
    try:
        client._transport.call(operation)
    except CallerError as error:
        refusal: CallerError | None = error
    else:
        refusal = None

    assert refusal is None or str(refusal)
    client.queue("a", create=True).send("the broker goes on")
