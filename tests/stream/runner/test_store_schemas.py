from __future__ import annotations

import threading

import pyarrow as pa
import pytest

import headrace
from headrace.queue import operations as ops
from headrace.stream.errors import DefinitionChanged
from headrace.stream.runner import state_keys
from headrace.stream.runner.store import BrokerStore, RetryPolicy
from tests.stream.runner.pipelines import counts, event, send


def test_state_with_other_columns_is_refused_instead_of_misread(client: headrace.Client) -> None:
    """Parts are without their schema: an integer would be read as a text, or the other way round."""
    send(client, [event(1)])
    counts().run(client, until="idle")
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(0, threading.Event()))
    [key] = store.read(state_keys.SCHEMA)
    other = pa.schema([("pane", pa.int64()), ("k0", pa.string())]).serialize().to_pybytes()
    store.transact(ops.Transact(name=state_keys.state_name("counts"), state=[(key, other)]))
    with pytest.raises(DefinitionChanged, match=r"state of aggregate-1 has columns pane int64, k0 string; this"):
        counts().run(client, until="idle")
