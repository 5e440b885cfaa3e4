"""Who is believed, and what exactly: proxies in a row, both families of headers, lies and rubbish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.settings import SettingsError
from headrace.web.forwarded import UNKNOWN_CLIENT, Client, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8", "unix"])


def client(peer: str = "10.0.0.1", trust: TrustedProxies = PROXIES, /, **headers: str) -> Client:
    named = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return trust.client(named, peer)


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.255.0.1", True),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("::ffff:10.0.0.1", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("fe00::1", False),
        ("unix", True),
        ("", False),
        ("localhost", False),
    ],
)
def test_trust_is_by_address_and_network(peer: str, trusted: bool) -> None:
    assert PROXIES.trusts(peer) is trusted


def test_nobody_else_is_believed() -> None:
    headers = {"x_forwarded_for": "1.2.3.4", "x_forwarded_proto": "https", "forwarded": "for=1.2.3.4;host=evil"}
    assert client("192.0.2.1", **headers) is UNKNOWN_CLIENT
    assert client("unix", TrustedProxies(["127.0.0.1"]), **headers) is UNKNOWN_CLIENT
    assert client() is UNKNOWN_CLIENT


@pytest.mark.parametrize(
    ("value", "address", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 0),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4", 0),
        ("6.6.6.6,1.2.3.4,10.2.2.2 , 10.3.3.3", "1.2.3.4", 0),
        ("10.4.4.4, 10.2.2.2", "10.4.4.4", 0),
        ("1.2.3.4:5678", "1.2.3.4", 5678),
        ("[2001:db8::1]:5678", "2001:db8::1", 5678),
        ("[2001:db8::1]", "2001:db8::1", 0),
        ("2001:DB8::1", "2001:db8::1", 0),
        ("::ffff:1.2.3.4", "1.2.3.4", 0),
        ("rubbish, 10.2.2.2", "10.2.2.2", 0),
        ("1.2.3.4, , 10.2.2.2", "10.2.2.2", 0),
        ("1.2.3.4, unknown", None, 0),
        ("", None, 0),
        (",", None, 0),
        ("1.2.3.999", None, 0),
        ("1.2.3.4 6.6.6.6", None, 0),
        ("01.2.3.4", None, 0),
        ("\xb2.1.1.1", None, 0),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(value: str, address: str | None, port: int) -> None:
    assert client(x_forwarded_for=value) == Client(address, port)


def test_trusting_everybody_takes_the_leftmost() -> None:
    everybody = TrustedProxies(["*"])
    assert client("6.6.6.6", everybody, x_forwarded_for="1.1.1.1, 2.2.2.2").address == "1.1.1.1"
    assert client("unix", everybody, x_forwarded_for="1.1.1.1").address == "1.1.1.1"


def test_a_very_long_list_is_read_only_near_its_end() -> None:
    hops = ", ".join(["6.6.6.6"] + ["10.0.0.9"] * 10_000)
    assert client(x_forwarded_for=hops).address == "10.0.0.9"


@pytest.mark.parametrize(
    ("addresses", "scheme", "secure"),
    [
        ("1.2.3.4", "https", True),
        ("1.2.3.4", "HTTP", False),
        ("1.2.3.4", "wss", True),
        ("1.2.3.4", "gopher", None),
        ("1.2.3.4", "", None),
        # as many as there are addresses: the one of the client's connection
        ("6.6.6.6, 1.2.3.4, 10.2.2.2", "http, https, http", True),
        # else the nearest proxy's word
        ("6.6.6.6, 1.2.3.4, 10.2.2.2", "https, http", False),
        ("6.6.6.6, 1.2.3.4", "https", True),
        (None, "https", True),
    ],
)
def test_the_scheme_is_that_of_the_clients_connection(addresses: str | None, scheme: str, secure: bool | None) -> None:
    headers = {} if addresses is None else {"x_forwarded_for": addresses}
    assert client(x_forwarded_proto=scheme, **headers).secure is secure


@pytest.mark.parametrize(
    ("port", "expected"), [("8443", 8443), ("0", None), ("65536", None), ("-1", None), ("x", None), ("²", None)]
)
def test_port(port: str, expected: int | None) -> None:
    assert client(x_forwarded_for="1.2.3.4", x_forwarded_port=port).server_port == expected


def test_forwarded_host_of_the_old_family_is_not_believed() -> None:
    assert client(x_forwarded_for="1.2.3.4", x_forwarded_host="evil.example").host is None
    assert client(x_forwarded_host="evil.example") is UNKNOWN_CLIENT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=1.2.3.4", Client("1.2.3.4")),
        (
            'For="[2001:db8::1]:47011";Proto=https;Host=example.org;by=10.1.1.1',
            Client("2001:db8::1", 47011, True, b"example.org"),
        ),
        ("for=6.6.6.6;host=evil, for=1.2.3.4 ; proto=http,for=10.2.2.2;host=inner", Client("1.2.3.4", 0, False)),
        ('for=1.2.3.4;host="a.example:8443"', Client("1.2.3.4", 0, None, b"a.example:8443")),
        ('for="1.2.\\3.4"', Client("1.2.3.4")),
        ("for=1.2.3.4;host=a/b", Client("1.2.3.4")),
        ('for=1.2.3.4;host="a\r\nx"', Client("1.2.3.4")),
        ("for=1.2.3.4;for=6.6.6.6", Client("1.2.3.4")),
        ("for=1.2.3.4,for=_hidden", UNKNOWN_CLIENT),
        ("for=unknown", UNKNOWN_CLIENT),
        ("proto=https", UNKNOWN_CLIENT),
        ("for=1.2.3.4,for=", UNKNOWN_CLIENT),
        ("for 1.2.3.4", UNKNOWN_CLIENT),
        ('for="1.2.3.4', UNKNOWN_CLIENT),
        ("", UNKNOWN_CLIENT),
        ("for=1.2.3.4" + " " * 10_000, UNKNOWN_CLIENT),
    ],
)
def test_forwarded_of_rfc_7239(value: str, expected: Client) -> None:
    assert client(forwarded=value) == expected


@pytest.mark.parametrize(
    "opened", ['for="', 'for=6.6.6.6;x="', 'for=6.6.6.6;host="evil', '"', 'for=6.6.6.6, for="6.6.6.6;a="']
)
@pytest.mark.parametrize("own", ["for=1.2.3.4", 'for="[2001:db8::1]:5"', 'for=1.2.3.4;host="a.example";proto=https'])
def test_a_quote_that_the_client_left_open_swallows_nothing_of_the_proxys(opened: str, own: str) -> None:
    assert client(forwarded=f"{opened}, {own}").address in (None, "1.2.3.4", "2001:db8::1")
    assert client(forwarded=f"{opened}, {own}").host in (None, b"a.example")


def test_the_family_that_the_proxy_does_not_know_cannot_lie() -> None:
    both = {"x_forwarded_for": "1.2.3.4", "x_forwarded_proto": "http"}
    assert client(forwarded="for=6.6.6.6;host=evil", **both) == UNKNOWN_CLIENT
    # The client knows its own address, so that they agree: still nothing of Forwarded is believed.
    assert client(forwarded="for=1.2.3.4;host=evil;proto=https", **both) == Client("1.2.3.4", 0, False)
    assert client(forwarded="for=1.2.3.4", x_forwarded_proto="https") == UNKNOWN_CLIENT
    assert client(forwarded="rubbish", **both) == UNKNOWN_CLIENT


@given(
    st.text(st.sampled_from('for=host"\\;, 1.2[]:_\t'), max_size=60),
    st.text(st.sampled_from("1234.:[], fx"), max_size=40),
)
def test_any_text_is_read_without_an_error(forwarded: str, addresses: str) -> None:
    for headers in (
        {"forwarded": forwarded},
        {"x_forwarded_for": addresses},
        {"forwarded": forwarded, "x_forwarded_for": addresses},
    ):
        assert isinstance(client(**headers), Client)


@given(st.lists(st.sampled_from(["6.6.6.6", "10.9.9.9", "x", ""]), max_size=5))
def test_what_the_client_wrote_to_the_left_changes_nothing(lies: list[str]) -> None:
    assert client(x_forwarded_for=", ".join([*lies, "1.2.3.4", "10.2.2.2"])).address == "1.2.3.4"
    forwarded = ",".join([*(f"for={lie}" for lie in lies), "for=1.2.3.4;proto=https"])
    assert client(forwarded=forwarded) == Client("1.2.3.4", 0, True)


def test_long_headers_are_not_remembered() -> None:
    trust = TrustedProxies(["*"])
    for number in range(100):
        client("1.1.1.1", trust, x_forwarded_for=f"{number}." * 200)
    assert trust._read.cache_info().currsize == 0


@pytest.mark.parametrize("name", ["10.0.0.0/33", "10.0.0.1/8", "proxy", "", "10.0.0"])
def test_what_is_no_proxy_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^web\.trusted_proxies: ") as raised:
        TrustedProxies(["127.0.0.1", name])
    assert repr(name) in str(raised.value)
