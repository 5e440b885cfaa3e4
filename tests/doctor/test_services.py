"""Settings, ports, certificates, keys, and a broker that runs."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from headrace.doctor.services import (
    Wanted,
    expiry,
    judge_certificate,
    judge_keys,
    judge_nodes,
    judge_port,
    look_at_broker,
)
from headrace.presence import BrokerFacts, write
from headrace.queue.model import HolderState


def test_certificate_that_has_expired_or_soon_will(tmp_path: Path) -> None:
    ends = datetime(2050, 3, 1, 12, tzinfo=UTC)
    file = tmp_path / "cert.pem"
    trustme.CA().issue_cert("localhost", not_after=ends).cert_chain_pems[0].write_to_path(file)
    assert expiry(file.read_text()) == ends
    assert judge_certificate("broker", file, now=ends - timedelta(days=60)).level == "ok"
    assert judge_certificate("broker", file, now=ends - timedelta(days=3)).level == "warning"
    assert judge_certificate("broker", file, now=ends).level == "problem"
    file.write_text("no certificate")
    assert judge_certificate("broker", file, now=ends).level == "problem"


def test_port_that_another_program_has_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert judge_port("web", "127.0.0.1", port, runs=False).level == "problem"
        assert judge_port("web", "127.0.0.1", port, runs=True).level == "ok"
    assert judge_port("web", "127.0.0.1", port, runs=False).level == "ok"


def test_keys_that_others_may_read_are_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("")
    file.chmod(0o644)
    line = judge_keys(file)
    assert line.level == "problem" and "chmod 600" in line.fact


def test_wrong_settings_are_a_problem_and_none_are_not(tmp_path: Path) -> None:
    assert Wanted({}, tmp_path, None).line.level == "ok"
    (tmp_path / "headrace.toml").write_text("[broker]\nprot = 1\n")
    line = Wanted({}, tmp_path, None).line
    assert line.level == "problem" and "prot" in line.fact


def test_broker_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    assert [line.level for line in look_at_broker(tmp_path)] == ["problem"]


def node(url: str, version: str) -> HolderState:
    return HolderState(f"broker-{url}", "broker", 0, 0, 0, write(BrokerFacts(url=url, pid=7, version=version)))


def test_nodes_of_a_shared_store_are_named_and_their_versions_compared() -> None:
    (line,) = judge_nodes([node("http://b:1", "1.0"), node("http://a:1", "1.0")])
    assert (line.level, line.fact) == ("ok", "2 on this store: http://a:1 (pid 7), http://b:1 (pid 7)")
    (line,) = judge_nodes([node("http://b:1", "1.0"), node("http://a:1", "1.1")])
    assert line.level == "warning" and "1.0, 1.1" in line.fact
    assert list(judge_nodes([])) == []
