"""Signatures, with botocore's signer as the independent other side."""

from __future__ import annotations

import calendar
import datetime as dt
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from headrace.sqs.keys import Key, KeyRing, Principal
from headrace.sqs.signature import SignatureFault, Verifier, credential_scope, derive_key

NOW = calendar.timegm((2026, 11, 24, 8, 13, 48, 0, 0, 0))
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ALICE = Principal("111122223333", "alice", "AKIDEXAMPLE")
JSON_HEADERS = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.SendMessage"}
BODY = b'{"QueueUrl":"http://localhost:9324/000000000000/orders","MessageBody":"hello"}'


@dataclass
class FakeRequest:
    method: str = "POST"
    target: str = "/"
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    peer: str = "127.0.0.1"
    secure: bool = False
    on_disconnect: Callable[[], None] | None = None
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        self.path, _, self.query = self.target.partition("?")

    def connected(self) -> bool:
        return True

    def respond(
        self, status: int, body: bytes, content_type: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        raise AssertionError("a verifier answers nothing")


class Signer:
    """Signs as botocore does, at a hand-set time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def _sign(self, auth: botocore.auth.SigV4Auth, request: AWSRequest, at: float) -> AWSRequest:
        moment = dt.datetime.fromtimestamp(at, dt.UTC)
        self._monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
        auth.add_auth(request)
        return request

    def header(
        self,
        url: str = "http://localhost:9324/",
        *,
        method: str = "POST",
        body: bytes = BODY,
        headers: dict[str, str] | None = None,
        key: str = "AKIDEXAMPLE",
        secret: str = SECRET,
        token: str | None = None,
        region: str = "eu-west-1",
        service: str = "sqs",
        at: float = NOW,
    ) -> FakeRequest:
        request = AWSRequest(method=method, url=url, data=body, headers=JSON_HEADERS if headers is None else headers)
        return _arrived(
            self._sign(botocore.auth.SigV4Auth(Credentials(key, secret, token), service, region), request, at)
        )

    def presigned(
        self, url: str, *, method: str = "GET", expires_s: int = 60, at: float = NOW, token: str | None = None
    ) -> FakeRequest:
        credentials = Credentials("AKIDEXAMPLE", SECRET, token)
        auth = botocore.auth.SigV4QueryAuth(credentials, "sqs", "eu-west-1", expires=expires_s)
        return _arrived(self._sign(auth, AWSRequest(method=method, url=url), at))


def _arrived(signed: AWSRequest) -> FakeRequest:
    """The request as it comes out of our HTTP engine."""
    parts = urlsplit(signed.url)
    headers = {name.lower().encode(): value.encode() for name, value in signed.headers.items()}
    headers[b"host"] = parts.netloc.encode()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return FakeRequest(signed.method, target, headers, signed.body or b"")


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Signer:
    return Signer(monkeypatch)


def verifier(now_s: float = NOW) -> Verifier:
    return Verifier(KeyRing({"AKIDEXAMPLE": Key(ALICE, SECRET)}), lambda: now_s)


def refused(request: FakeRequest, now_s: float = NOW) -> SignatureFault:
    with pytest.raises(SignatureFault) as caught:
        verifier(now_s).verify(request)
    return caught.value


# ------------------------------------------------------------------------------------------------------- what passes


def test_header_signature_names_its_principal(signer: Signer) -> None:
    assert verifier().verify(signer.header()) == ALICE


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:9324",
        "http://localhost:9324/000000000000/orders.fifo",
        "http://sqs.eu-west-1.localhost:9324/000000000000/a-b_c.fifo",
        "http://localhost:9324/queue/eu-west-1/000000000000/orders/",
        "http://localhost:9324/a%20b/%C3%BC",
        "http://localhost:9324/?Action=ListQueues&Version=2012-11-05",
        "http://localhost:9324/?b=2&a=1&a=0&empty&also=&tilde=~&plus=a%2Bb&space=a%20b",
        "http://localhost:9324/?MessageBody=a+b&Action=SendMessage",
        "http://localhost:9324/./a//b/../c",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_any_target_verifies(signer: Signer, url: str, method: str) -> None:
    assert verifier().verify(signer.header(url, method=method, body=b"", headers={})) == ALICE


def test_form_body_with_session_token_and_spaced_header_verifies(signer: Signer) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded;   charset=utf-8", "X-Custom": "  a   b  "}
    assert verifier().verify(signer.header(body=b"Action=ListQueues", headers=headers, token="session")) == ALICE


def test_declared_body_hash_verifies(signer: Signer) -> None:
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert verifier().verify(signer.header(body=b"", headers={"X-Amz-Content-SHA256": digest})) == ALICE


def test_date_header_stands_in_for_x_amz_date(signer: Signer) -> None:
    request = signer.header(headers={**JSON_HEADERS, "Date": "to be replaced by the signer"})
    assert b"x-amz-date" not in request.headers
    assert verifier().verify(request) == ALICE


def test_presigned_get_verifies_until_it_expires(signer: Signer) -> None:
    url = "http://localhost:9324/000000000000/orders?Action=SendMessage&MessageBody=a%20b%2Bc&Version=2012-11-05"
    request = signer.presigned(url, expires_s=3600, token="session/token+x=")
    assert verifier(NOW + 3600).verify(request) == ALICE
    late = refused(request, NOW + 3601)
    assert (late.code, late.shape, late.status) == ("RequestExpired", "RequestExpired", 403)


@given(
    path=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    query=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=4),
    body=st.binary(max_size=50),
)
def test_every_request_that_botocore_signs_verifies(path: list[str], query: list[tuple[str, str]], body: bytes) -> None:
    # surrogates cannot be sent at all
    if any("\ud800" <= c <= "\udfff" for c in "".join(path) + "".join(a + b for a, b in query)):
        return
    url = "http://localhost:9324/" + "/".join(quote(part, safe="") for part in path)
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)
    with pytest.MonkeyPatch.context() as patch:
        request = Signer(patch).header(f"{url}?{text}" if text else url, body=body)
    assert verifier().verify(request) == ALICE


@pytest.mark.parametrize("late_s", [-300, 300])
def test_five_minutes_of_skew_are_accepted(signer: Signer, late_s: int) -> None:
    assert verifier(NOW + late_s).verify(signer.header()) == ALICE


def test_aws_key_derivation_example() -> None:
    """The example of AWS's documentation derives for `iam`; ours signs for `sqs`, checked against botocore's steps."""
    auth = botocore.auth.SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), "sqs", "us-east-1")
    key = auth._sign(f"AWS4{SECRET}".encode(), "20150830")
    for part in ("us-east-1", "sqs", "aws4_request"):
        key = auth._sign(key, part)
    assert derive_key(SECRET, "20150830", "us-east-1") == key


# ------------------------------------------------------------------------------------------------- what is refused


def test_unsigned_request_is_told_so() -> None:
    fault = refused(FakeRequest(headers={b"host": b"localhost"}))
    assert (fault.code, fault.status) == ("MissingAuthenticationToken", 403)
    assert fault.message == "Request is missing Authentication Token"


def test_unknown_key_is_refused(signer: Signer) -> None:
    fault = refused(signer.header(key="AKIDNOBODY"))
    assert (fault.code, fault.shape, fault.status) == ("InvalidClientTokenId", "UnrecognizedClientException", 403)
    assert fault.message == "The security token included in the request is invalid."


def test_wrong_secret_is_refused(signer: Signer) -> None:
    fault = refused(signer.header(secret="another secret, long enough"))
    assert (fault.code, fault.shape, fault.status) == ("SignatureDoesNotMatch", "InvalidSignatureException", 403)


TAMPERED: dict[str, Callable[[FakeRequest], FakeRequest]] = {
    "method": lambda r: replace(r, method="PUT"),
    "path": lambda r: replace(r, target="/other?" + r.query),
    "query value": lambda r: replace(r, target=r.target.replace("a=1", "a=2")),
    "query added": lambda r: replace(r, target=r.target + "&b=1"),
    "body": lambda r: replace(r, body=r.body + b" "),
    "host": lambda r: replace(r, headers={**r.headers, b"host": b"evil.example"}),
    "date": lambda r: replace(r, headers={**r.headers, b"x-amz-date": b"20261124T081349Z"}),
    "operation": lambda r: replace(r, headers={**r.headers, b"x-amz-target": b"AmazonSQS.PurgeQueue"}),
    "content type": lambda r: replace(r, headers={**r.headers, b"content-type": b"text/plain"}),
    "signed header removed": lambda r: replace(r, headers={n: v for n, v in r.headers.items() if n != b"x-amz-target"}),
    "body hash declared anew": lambda r: replace(r, headers={**r.headers, b"x-amz-content-sha256": b"0" * 64}),
    "unsigned payload declared": lambda r: replace(
        r, headers={**r.headers, b"x-amz-content-sha256": b"UNSIGNED-PAYLOAD"}
    ),
    "session token added": lambda r: replace(r, headers={**r.headers, b"x-amz-security-token": b"token"}),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_noticed(signer: Signer, how: str) -> None:
    request = signer.header("http://localhost:9324/?a=1")
    assert verifier().verify(request) == ALICE
    fault = refused(TAMPERED[how](request))
    assert (fault.code, fault.status) == ("SignatureDoesNotMatch", 403)


def test_unsigned_payload_is_refused_even_if_signed_so(signer: Signer) -> None:
    request = signer.header(headers={**JSON_HEADERS, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert refused(request).code == "SignatureDoesNotMatch"


def test_presigned_query_and_body_cannot_be_changed(signer: Signer) -> None:
    request = signer.presigned("http://localhost:9324/?Action=ListQueues")
    for changed in (
        replace(request, target=request.target.replace("ListQueues", "PurgeQueue")),
        replace(request, target=request.target.replace("X-Amz-Expires=60", "X-Amz-Expires=600")),
        replace(request, target=request.target + "&Action=PurgeQueue"),
        replace(request, body=b"Action=PurgeQueue"),
        replace(request, headers={b"host": b"evil.example"}),
        replace(request, headers={**request.headers, b"x-amz-target": b"AmazonSQS.PurgeQueue"}),
    ):
        assert refused(changed).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(("late_s", "text"), [(301, "Signature expired: "), (-301, "Signature not yet current: ")])
def test_more_skew_is_refused(signer: Signer, late_s: int, text: str) -> None:
    fault = refused(signer.header(), NOW + late_s)
    assert (fault.code, fault.status) == ("SignatureDoesNotMatch", 403)
    assert fault.message.startswith(f"{text}20261124T081348Z is ")


def test_presigned_url_of_the_future_is_refused(signer: Signer) -> None:
    fault = refused(signer.presigned("http://localhost:9324/?Action=ListQueues", expires_s=604_800), NOW - 301)
    assert fault.message.startswith("Signature not yet current")


def test_other_services_signature_is_refused(signer: Signer) -> None:
    assert refused(signer.header(service="s3")).message == "Credential should be scoped to correct service: 'sqs'."


@pytest.mark.parametrize("region", ["", "EU", "a" * 33, "eu:west"])
def test_odd_regions_are_refused(signer: Signer, region: str) -> None:
    assert refused(signer.header(region=region)).message == "Credential should be scoped to a valid region."


@pytest.mark.parametrize("name", ["host", "x-amz-date", "x-amz-target"])
def test_steering_headers_must_be_signed(signer: Signer, name: str) -> None:
    request = signer.header()
    signed = request.headers[b"authorization"].decode()
    names = signed.partition("SignedHeaders=")[2].partition(",")[0]
    kept = ";".join(n for n in names.split(";") if n != name)
    request.headers[b"authorization"] = signed.replace(names, kept).encode()
    assert "must be a 'SignedHeader'" in refused(request).message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v.replace(b"AWS4-HMAC-SHA256", b"AWS4-ECDSA-P256-SHA256"), "Unsupported AWS 'algorithm'"),
        (lambda v: v.replace(b"Credential=", b"Cred="), "requires 'Credential' parameter"),
        (lambda v: v.replace(b"Signature=", b"Sig="), "requires 'Signature' parameter"),
        (lambda v: v.replace(b"SignedHeaders=", b"Headers="), "requires 'SignedHeaders' parameter"),
        (lambda v: v.replace(b"/sqs/", b"/"), "five slash-separated parts"),
        (lambda _: b"Basic dXNlcjpwYXNz", "Unsupported AWS 'algorithm'"),
        (lambda _: b"", "Unsupported AWS 'algorithm'"),
    ],
)
def test_malformed_authorization_is_incomplete(signer: Signer, change: Callable[[bytes], bytes], text: str) -> None:
    request = signer.header()
    request.headers[b"authorization"] = change(request.headers[b"authorization"])
    fault = refused(request)
    assert (fault.code, fault.status) == ("IncompleteSignature", 400)
    assert text in fault.message


@pytest.mark.parametrize(
    "date", [b"yesterday", b"20261324T081348Z", b"2026-11-24T08:13:48Z", b"20261124T081348Z\xc2\xb2"]
)
def test_malformed_date_is_incomplete(signer: Signer, date: bytes) -> None:
    request = signer.header()
    request.headers[b"x-amz-date"] = date
    assert refused(request).code == "IncompleteSignature"


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "+5", "5_0", "1e3", "", "9999999"])
def test_presigned_lifetime_has_bounds(signer: Signer, expires: str) -> None:
    request = signer.presigned("http://localhost:9324/?Action=ListQueues")
    request = replace(request, target=request.target.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}"))
    assert refused(request).code == "IncompleteSignature"


def test_repeated_presigned_parameter_is_refused(signer: Signer) -> None:
    request = signer.presigned("http://localhost:9324/?Action=ListQueues")
    assert refused(replace(request, target=request.target + "&X-Amz-Expires=600")).code == "IncompleteSignature"


def test_two_signatures_at_once_are_refused(signer: Signer) -> None:
    request = signer.presigned("http://localhost:9324/?Action=ListQueues")
    request.headers[b"authorization"] = signer.header().headers[b"authorization"]
    assert refused(request).code == "IncompleteSignature"


@given(header=st.binary(max_size=200), date=st.binary(max_size=20), query=st.text(max_size=80))
def test_garbage_raises_nothing_but_a_fault(header: bytes, date: bytes, query: str) -> None:
    prefix = (
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/eu-west-1/sqs/aws4_request,SignedHeaders=host;x-amz-date,"
    )
    for value in (header, prefix + header, prefix + b"Signature=" + header):
        request = FakeRequest(target=f"/?{query}", headers={b"authorization": value, b"x-amz-date": date})
        refused(request)
        refused(replace(request, headers={**request.headers, b"x-amz-date": b"20261124T081348Z"}))
        credential_scope(request)
    refused(FakeRequest(target=f"/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0&{query}"))


# ------------------------------------------------------------------------------------------------------------ keys


def test_replaced_keys_hold_at_once(signer: Signer) -> None:
    both = verifier()
    assert both.verify(signer.header()) == ALICE
    bob = Principal("111122223333", "bob", "AKIDBOB")
    both.replace(KeyRing({"AKIDBOB": Key(bob, "another secret, long enough")}))
    assert both.verify(signer.header(key="AKIDBOB", secret="another secret, long enough")) == bob
    with pytest.raises(SignatureFault, match="security token"):
        both.verify(signer.header())


def test_same_key_id_with_a_new_secret_is_not_served_from_the_cache(signer: Signer) -> None:
    one = verifier()
    one.verify(signer.header())
    one.replace(KeyRing({"AKIDEXAMPLE": Key(ALICE, "another secret, long enough")}))
    with pytest.raises(SignatureFault, match="does not match"):
        one.verify(signer.header())


def test_unknown_key_does_the_work_of_a_wrong_signature(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: as many HMACs and comparisons for either."""
    calls: list[str] = []

    class Counted:
        @staticmethod
        def digest(*args: Any) -> bytes:
            calls.append("digest")
            return hmac.digest(*args)

        @staticmethod
        def compare_digest(*args: Any) -> bool:
            calls.append("compare")
            return hmac.compare_digest(*args)

    monkeypatch.setattr("headrace.sqs.signature.hmac", Counted)
    refused(signer.header(secret="another secret, long enough"))
    wrong = calls.copy()
    calls.clear()
    refused(signer.header(key="AKIDNOBODY"))
    assert calls == wrong
    assert wrong.count("compare") == 2


def test_made_up_regions_do_not_fill_the_memory(signer: Signer) -> None:
    one = verifier()
    authorization = signer.header().headers[b"authorization"]
    for number in range(5_000):
        request = signer.header() if number == 0 else FakeRequest(headers={b"x-amz-date": b"20261124T081348Z"})
        request.headers[b"authorization"] = authorization.replace(b"eu-west-1", b"r%d" % number)
        with pytest.raises(SignatureFault):
            one.verify(request)
    assert len(one._day_keys) <= 4_096


# ----------------------------------------------------------------------------------------------------------- scope


def test_scope_is_read_without_keys(signer: Signer) -> None:
    assert credential_scope(signer.header(region="ap-south-1", key="x/y")) == ("x/y", "ap-south-1")
    assert credential_scope(signer.presigned("http://localhost:9324/?Action=ListQueues")) == (
        "AKIDEXAMPLE",
        "eu-west-1",
    )


@pytest.mark.parametrize(
    "value", [b"", b"Bearer x", b"Credential=", b"Credential=a/b/c", b"Credential=k/20261124/EU WEST/sqs/aws4_request"]
)
def test_no_scope_is_none(value: bytes) -> None:
    assert credential_scope(FakeRequest(headers={b"authorization": value})) is None
    assert credential_scope(FakeRequest()) is None


def test_verifying_is_cheap_enough_for_every_request(signer: Signer) -> None:
    """Bound: 1 ms of CPU each, twenty times what it takes; a derivation a request or a slow parser would show."""
    one, request = verifier(), signer.header()
    one.verify(request)
    started = time.process_time()
    for _ in range(200):
        one.verify(request)
    assert time.process_time() - started < 0.2
