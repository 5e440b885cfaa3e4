"""Who is measured: which servers, which client, at how many connections."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.postgres import servers
from benchmarks.postgres.servers import Serving

Mode = Literal["send", "cycle"]

NODES: Final = (1, 2, 4)
NATIVE_BATCH: Final = 1_000


@dataclass(frozen=True)
class Contender:
    """A queue in one shape.

    Attributes:
        name: as the tables show it; headrace's begin with "headrace".
        serve: starts its servers in a folder.
        client: the module in `clients/` that loads it.
        connections: over all client processes.
        clients: how many processes load it.
        options: more of the client's command line.
        keeps: what is on the disk when a message has been accepted.
    """

    name: str
    serve: Callable[[Path], AbstractContextManager[Serving]]
    client: str
    connections: int
    clients: int = 1
    options: tuple[str, ...] = ()
    keeps: str = "each commit"

    @property
    def ours(self) -> bool:
        return self.name.startswith("headrace")


def _ours(nodes: int, shape: str = "tens", *, client: str = "sqs", options: tuple[str, ...] = ()) -> Contender:
    connections = 4 * nodes if client == "native" else max(64, 32 * nodes)
    return Contender(
        f"headrace, {nodes} {'node' if nodes == 1 else 'nodes'}, {shape}",
        functools.partial(servers.headrace, nodes=nodes),
        client,
        connections,
        clients=nodes,
        options=options,
    )


CONTENDERS: Final = (
    *(_ours(nodes) for nodes in NODES),
    *(
        _ours(nodes, "thousands", client="native", options=("--batch", str(NATIVE_BATCH)))
        for nodes in NODES
    ),
    *(_ours(nodes, "FIFO, tens", options=("--fifo",)) for nodes in NODES),
    Contender("SKIP LOCKED by each client (PGMQ's statements)", servers.postgres_alone, "skip_locked", 16),
    Contender("Procrastinate", servers.postgres_alone, "procrastinate_client", 16),
    Contender("RabbitMQ, quorum queue, one node", servers.rabbit, "rabbit_client", 64),
    Contender("NATS JetStream, sync always", servers.nats, "nats_client", 16, keeps="each message"),
)  # fmt: skip
