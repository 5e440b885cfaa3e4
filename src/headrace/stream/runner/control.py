"""What people ask of a running pipeline: `headrace stream pause|resume`."""

from __future__ import annotations

import msgspec

from headrace.queue import operations as ops
from headrace.stream.runner import keys
from headrace.stream.runner.store import Store


class Control(msgspec.Struct, frozen=True):
    """`paused`: no batch is begun; what is under way is finished."""

    paused: bool = False


def read_control(store: Store) -> Control:
    found = store.read(keys.CONTROL).get(keys.CONTROL)
    return Control() if found is None else msgspec.json.decode(found, type=Control)


def write_control(store: Store, pipeline: str, control: Control) -> None:
    """Whoever runs the pipeline follows within MEMBER_BEAT_MS."""
    state = [(keys.CONTROL, msgspec.json.encode(control))]
    store.transact(ops.Transact(name=keys.state_name(pipeline), state=list(state)))
