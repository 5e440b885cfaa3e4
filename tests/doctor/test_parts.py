"""Settings, ports, certificates, keys, and a broker that runs."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from headrace.doctor.parts import Wanted, expiry, judge_certificate, judge_keys, judge_port, look_at_broker


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
