"""How far nodes and databases go: measured costs in, 1 to 1,000 nodes and several databases out.

    python -m benchmarks.scale_sim benchmarks/results/postgres-latest.json            a table
    python -m benchmarks.scale_sim benchmarks/results/postgres-latest.json docs/img   scale.svg, where matplotlib is

A computation, not a measurement. What a message costs is fitted to the benchmark's rows: so much for itself, and its share of
what a transaction costs, whatever is in it. How many share one follows from how many clients there are and how long a
transaction takes: that is solved for. Beside processors it knows syncs, round trips, and that what a node tells costs the
database something for each node that listens. `check` compares what it says of one machine with what was measured there.

Imports nothing of headrace: see `charts.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.charts import given, pyplot, save

CONNECTIONS: Final = {1: 64, 2: 64, 4: 128}
"""Of the benchmark's rows in tens, by number of nodes."""
REQUEST: Final = 10  # messages
REQUESTS: Final = 3  # send, receive, delete: each client waits for one of them
TRANSACTIONS: Final = 2  # sends and deletes of a few messages share theirs, receives have their own
TELL_US: Final = 30.0
"""What one listener costs the database when something is told: measured, 40 connections, 1.2 ms a NOTIFY."""
PACE_S, BUSY_PAUSES, BUSY_MAX_S = 75e-6, 4, 0.05
"""`headrace.queue.store.postgres.news`: how long a node waits before it tells the next."""
BATCH_MAX: Final = 10_000  # messages: 1,000 requests of ten
NODES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)
DATABASES: Final = (1, 2, 4, 8)
ROUNDS: Final = 200  # of the solution; it stands still after some twenty


@dataclass(frozen=True)
class Costs:
    """µs of processor. `…_message`: of each; `…_transaction`: of each transaction of a lane, whatever is in it."""

    node_message: float
    node_transaction: float
    database_message: float
    database_transaction: float
    client_message: float

    def node(self, batch: float) -> float:
        """A message's cost when so many share a transaction."""
        return self.node_message + TRANSACTIONS * self.node_transaction / batch

    def database(self, batch: float) -> float:
        return self.database_message + TRANSACTIONS * self.database_transaction / batch


@dataclass(frozen=True)
class Plant:
    """What is there. Each node is a process: its Python runs on one processor at a time."""

    nodes: int
    databases: int = 1
    database_cores: int = 8
    connections: int = 64  # a node's clients: each asks again when it is answered
    sync_ms: float = 1.0
    round_trip_ms: float = 0.5


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(a, b) of cost = a + b / batch, by least squares; neither below 0."""
    inverse = [1 / batch for batch, _ in points]
    costs = [cost for _, cost in points]
    mean_x, mean_y = sum(inverse) / len(points), sum(costs) / len(points)
    spread = sum((x - mean_x) ** 2 for x in inverse)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(inverse, costs, strict=True)) / spread if spread else 0.0
    slope = max(0.0, slope)
    return max(0.0, mean_y - slope * mean_x), slope


def batch_of(connections: int, nodes: int) -> float:
    """How many messages share a transaction when all clients always wait for one of their requests."""
    return max(REQUEST, connections / nodes * REQUEST / REQUESTS)


def costs_of(rows: Sequence[dict[str, Any]]) -> Costs:
    """What the benchmark's rows of whole cycles say. Raises ValueError: there are not enough of them."""
    tens = {nodes: row for nodes in CONNECTIONS for row in rows if _is(row, nodes, "tens")}
    if len(tens) < len(CONNECTIONS):
        raise ValueError("the results lack rows of 1, 2 or 4 nodes in tens: run the whole benchmark")
    batches = {nodes: batch_of(connections, nodes) for nodes, connections in CONNECTIONS.items()}
    node = fit([(batches[nodes], row["node_us"]) for nodes, row in tens.items()])
    points = [(batches[nodes], row["database_us"]) for nodes, row in tens.items()]
    thousands = [(1_000.0, row["database_us"]) for row in rows if _is(row, 1, "thousands")]
    database = fit(points + thousands)
    client = sum(row["client_us"] for row in tens.values()) / len(tens)
    return Costs(node[0], node[1] / TRANSACTIONS, database[0], database[1] / TRANSACTIONS, client)


def _is(row: dict[str, Any], nodes: int, shape: str) -> bool:
    name = f"headrace, {nodes} {'node' if nodes == 1 else 'nodes'}, {shape}"
    return bool(row["mode"] == "cycle" and row["name"] == name)


def rate(costs: Costs, plant: Plant) -> tuple[float, str]:
    """Messages a second through their whole life, and what limits: clients, nodes or databases."""
    most = min(BATCH_MAX, max(REQUEST, plant.connections * REQUEST / REQUESTS / plant.databases))
    batch = float(REQUEST)
    limits = {"clients": 0.0}
    for _ in range(ROUNDS):
        took_us = _transaction_us(costs, plant, batch)
        limits = {
            "clients": plant.nodes * plant.connections * REQUEST / (REQUESTS * 1.5 * took_us) * 1e6,
            "nodes": plant.nodes * 1e6 / costs.node(batch),
            "databases": plant.databases * _free_us(plant, took_us) / costs.database(batch),
        }
        busiest = min(limits, key=lambda name: limits[name])
        if busiest == "clients":  # nothing is full: as many share a transaction as come while one runs
            gathered = limits["clients"] / (plant.nodes * plant.databases) * took_us / 1e6
        else:  # all wait in front of what is full
            gathered = most
        batch += 0.2 * (min(most, max(REQUEST, gathered)) - batch)
    busiest = min(limits, key=lambda name: limits[name])
    return limits[busiest], busiest


def _free_us(plant: Plant, took_us: float) -> float:
    """What a database's processors have for messages, µs a second: not what nodes tell each other by it, each at its pace."""
    pace_s = max(PACE_S * plant.nodes**2, min(BUSY_MAX_S, BUSY_PAUSES * took_us / 1e6))
    return max(0.0, plant.database_cores * 1e6 - plant.nodes**2 * TELL_US / pace_s)


def _transaction_us(costs: Costs, plant: Plant, batch: float) -> float:
    """How long a lane's transaction takes when nothing is in its way: two round trips, a sync, the work."""
    fixed = (2 * plant.round_trip_ms + plant.sync_ms) * 1_000 + costs.node_transaction + costs.database_transaction
    return fixed + batch * (costs.node_message + costs.database_message) / TRANSACTIONS


def check(costs: Costs, rows: Sequence[dict[str, Any]], cores: int) -> Iterator[tuple[int, float, float]]:
    """(nodes, messages/s that the model says of one machine with everybody on it, measured)."""
    for nodes, connections in CONNECTIONS.items():
        batch = batch_of(connections, nodes)
        cost = costs.node(batch) + costs.database(batch) + costs.client_message
        measured = next(row["messages_per_s"] for row in rows if _is(row, nodes, "tens"))
        yield nodes, cores * 1e6 / cost, measured


def draw(plot: Any, costs: Costs, path: Path) -> None:
    """Rates over nodes, a line for each number of databases."""
    figure, panel = plot.subplots(figsize=(8, 3.6), layout="constrained")
    for databases, colour in zip(DATABASES, ("#0b6e99", "#e0b04c", "#7a9e4f", "#9b5d8f"), strict=True):
        rates = [rate(costs, Plant(nodes, databases))[0] for nodes in NODES]
        panel.plot(NODES, rates, color=colour, marker="o", markersize=3, label=f"{databases} × 8 cores")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("nodes, 64 connections each, ten messages a request")
    panel.set_title("Messages a second through their whole life, computed", loc="left", fontsize=10)
    panel.legend(frameon=False, title="databases")
    save(plot, figure, path)


def main() -> None:
    """RESULTS.json [FOLDER]."""
    results = json.loads(Path(sys.argv[1]).read_text())
    costs = costs_of(results["rows"])
    if len(sys.argv) > 2:
        draw(pyplot(), costs, given()[1] / "scale.svg")
        return
    print(costs)
    for nodes, said, measured in check(costs, results["rows"], results["machine"]["cores"]):
        print(f"{nodes} nodes on this machine: {said:,.0f} messages/s computed, {measured:,.0f} measured")
    for nodes in NODES:
        found = [rate(costs, Plant(nodes, databases)) for databases in DATABASES]
        print(f"{nodes:>5} nodes: " + "   ".join(f"{one:>9,.0f} ({why})" for one, why in found))


if __name__ == "__main__":
    main()
