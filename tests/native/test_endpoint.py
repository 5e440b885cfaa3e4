from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import InvalidParameter
from headrace.native.endpoint import Endpoint, parse
from tests.native.served import ServedBroker


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("http://127.0.0.1:9324", Endpoint("127.0.0.1", 9324)),
        ("http://queue.example/", Endpoint("queue.example", 9324)),
        ("https://queue.example:443", Endpoint("queue.example", 443, tls=True)),
        ("http://[::1]:9", Endpoint("::1", 9)),
        ("unix:///run/headrace.sock", Endpoint("localhost", unix_path="/run/headrace.sock")),
        ("unix://relative/headrace.sock", Endpoint("localhost", unix_path="relative/headrace.sock")),
        ("unix:///a,b.sock", Endpoint("localhost", unix_path="/a,b.sock")),
        ("http://a,b:9", Endpoint("a", others=(Endpoint("b", 9),))),
        ("https://a,http://b", Endpoint("a", tls=True, others=(Endpoint("b"),))),
        (
            "unix:///a.sock,https://b,c",
            Endpoint("localhost", unix_path="/a.sock", others=(Endpoint("b", tls=True), Endpoint("c", tls=True))),
        ),
    ],
)
def test_url_names_an_endpoint(target: str, endpoint: Endpoint) -> None:
    assert parse(target) == endpoint
    assert parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "target",
    [
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host:x",
        "http://host/path",
        "unix://",
        "http://me:pw@host",
        "http://a,",
        "http://a,ftp://b",
        "http://a,b/path",
    ],
)
def test_other_urls_are_refused_with_what_would_do(target: str) -> None:
    with pytest.raises(InvalidParameter):
        parse(target)


def test_folder_is_opened_here_unless_a_broker_serves_it(tmp_path: Path, served: ServedBroker) -> None:
    own = tmp_path / "own"
    own.mkdir()
    stale = own / "headrace.sock"

    assert parse(own) == own
    assert parse(served.unix_path.parent) == Endpoint("localhost", unix_path=str(served.unix_path))
    served.unix_path.rename(stale)
    served.stop()
    assert parse(str(own)) == own
