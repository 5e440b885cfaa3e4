"""The computation of how far nodes go: it gives back what it was fitted to, and bends where something is full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_sim
from benchmarks.scale_sim import CONNECTIONS, Costs, Plant, batch_of, check, costs_of, fit, rate

COSTS = Costs(
    node_message=40.0, node_transaction=500.0, database_message=18.0, database_transaction=400.0, client_message=6.0
)


def rows() -> list[dict[str, Any]]:
    """What the benchmark would measure if messages had these costs."""
    found = []
    for nodes, connections in CONNECTIONS.items():
        batch = batch_of(connections, nodes)
        found.append(
            {
                "name": f"headrace, {nodes} {'node' if nodes == 1 else 'nodes'}, tens", "mode": "cycle",
                "node_us": COSTS.node(batch), "database_us": COSTS.database(batch), "client_us": COSTS.client_message,
                "messages_per_s": 20_000.0,
            }
        )  # fmt: skip
    return found


def test_costs_are_found_again_in_what_they_make() -> None:
    found = costs_of(rows())
    assert found.node(100.0) == pytest.approx(COSTS.node(100.0))
    assert found.database(1_000.0) == pytest.approx(COSTS.database(1_000.0))


def test_cost_that_grows_with_the_batch_is_taken_as_constant() -> None:
    assert fit([(10.0, 5.0), (100.0, 6.0)]) == (5.5, 0.0)


def test_rate_rises_with_nodes_until_the_database_is_full() -> None:
    costs = replace(COSTS, database_message=8.0, database_transaction=100.0)
    few, many = rate(costs, Plant(1, connections=512)), rate(costs, Plant(64, connections=512))
    assert rate(costs, Plant(2, connections=512))[0] == pytest.approx(2 * few[0])
    assert (few[1], many[1]) == ("nodes", "databases")
    assert many[0] < 64 * few[0]
    assert rate(costs, Plant(64, databases=2, connections=512))[0] > many[0]


def test_rate_of_few_clients_on_a_slow_disk_is_theirs() -> None:
    assert rate(COSTS, Plant(1, connections=1, sync_ms=20.0))[1] == "clients"


def test_what_is_computed_of_one_machine_stands_beside_what_was_measured() -> None:
    found = list(check(COSTS, rows(), cores=2))
    assert [nodes for nodes, _, _ in found] == [1, 2, 4]
    assert all(10_000 < computed < 40_000 and measured == 20_000 for _, computed, measured in found)


def test_results_without_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="run the whole benchmark"):
        costs_of([])


def test_table_has_a_line_for_each_number_of_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"rows": rows(), "machine": {"cores": 2}}))
    monkeypatch.setattr("sys.argv", ["scale_sim", str(path)])
    scale_sim.main()
    assert " 1000 nodes" in capsys.readouterr().out
