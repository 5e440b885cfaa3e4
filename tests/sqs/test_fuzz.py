"""Whatever arrives, the answer is one of the protocol's own: never a 500, never none, never two."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.sqs import codec_json, codec_query, shapes
from headrace.sqs.api import ACTIONS
from headrace.sqs.errors import Fault
from headrace.sqs.urls import parse_url
from tests.sqs.harness import Answer, FakeRequest, Harness
from tests.sqs.query_model import LIST_ELEMENTS, current_model

MODEL = current_model()
NAMES = sorted(ACTIONS)

# Values near those that mean something reach further than random ones.
TEXTS = st.one_of(
    st.sampled_from(
        [
            "q", "q.fifo", "http://localhost:9324/000000000000/q", "http://localhost:9324/000000000000/q.fifo", "", "All",
            "arn:aws:sqs:us-east-1:000000000000:q", "AAAA", "5", "-1", "true", "String", "Number", "Binary", "{}", "[]",
            '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:q","maxReceiveCount":1}', "000000000000",
            "DelaySeconds", "RedrivePolicy", "Policy", "FifoQueue", "\x00", "\ufffe", "😀", "a.*", "1" * 400, "SendMessage",
        ]
    ),
    st.text(max_size=20),
)  # fmt: skip
INTEGERS = st.one_of(st.sampled_from([0, 1, 10, 11, 20, 900, 43_200, -1, 2**31, 2**63, 10**40]), st.integers())
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)


def values(name: str) -> st.SearchStrategy[Any]:
    """Values of a shape of AWS's model, some of its members left out."""
    shape = MODEL["shapes"][name]
    kind = shape["type"]
    if kind == "structure":
        members = {member: values(target["shape"]) for member, target in shape["members"].items()}
        return st.fixed_dictionaries({}, optional=members)
    if kind == "list":
        return st.lists(values(shape["member"]["shape"]), max_size=3)
    if kind == "map":
        return st.dictionaries(TEXTS, values(shape["value"]["shape"]), max_size=3)
    if kind in ("integer", "long"):
        return INTEGERS
    return st.sampled_from(["AAE=", "", "!"]) if kind == "blob" else TEXTS


REQUESTS = {name: values(MODEL["operations"][name]["input"]["shape"]) for name in NAMES}


@pytest.fixture(scope="module")
def service() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


def serve(harness: Harness, request: FakeRequest) -> Answer:
    if harness.broker.find("arn:aws:sqs:us-east-1:000000000000:q") is None:
        harness.create("q")
    if harness.broker.find("arn:aws:sqs:us-east-1:000000000000:q.fifo") is None:
        harness.create("q.fifo", FifoQueue="true")
    return harness.serve(request)


def check(answer: Answer) -> None:
    """One of the protocol's own answers, with what goes with it."""
    assert answer.status in (200, 400, 403, 404, 405), answer
    assert len(answer.headers["x-amzn-requestid"]) == 36
    if answer.content_type == "text/xml":
        root = answer.xml()
        assert (root.tag == "ErrorResponse") == (answer.status != 200)
    else:
        body = answer.json()
        assert ("__type" in body) == (answer.status != 200)
    assert bool(answer.code) == (answer.status != 200)


QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def no_wait(members: dict[str, Any]) -> dict[str, Any]:
    """Without long polls: they are answered when their time has come."""
    return {key: value for key, value in members.items() if key != "WaitTimeSeconds"}


@QUIET
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_requests_of_the_model_in_json(service: Harness, data: st.DataObject, name: str) -> None:
    members = no_wait(data.draw(REQUESTS[name]))
    check(serve(service, _json(name, json.dumps(members).encode())))


@QUIET
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_requests_of_the_model_in_query(service: Harness, data: st.DataObject, name: str) -> None:
    members = no_wait(data.draw(REQUESTS[name]))
    form = list(flatten(name, MODEL["operations"][name]["input"]["shape"], members, ""))
    body = urlencode([("Action", name), *form], errors="replace").encode()
    check(serve(service, FakeRequest(body=body, target=data.draw(st.sampled_from(["/", "/000000000000/q", "/x/y"])))))


def flatten(operation: str, name: str, value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """A value as parameters, by the names that AWS documents."""
    shape = MODEL["shapes"][name]
    if shape["type"] == "structure":
        for member, item in value.items():
            target = shape["members"][member]["shape"]
            yield from flatten(operation, target, item, f"{prefix}{_parameter(member, target)}.")
    elif shape["type"] == "list":
        for index, item in enumerate(value, 1):
            yield from flatten(operation, shape["member"]["shape"], item, f"{prefix}{index}.")
    elif shape["type"] == "map":
        key_name, value_name = ("Key", "Value") if name == "TagMap" else ("Name", "Value")
        for index, (key, item) in enumerate(value.items(), 1):
            yield f"{prefix}{index}.{key_name}", key
            yield from flatten(operation, shape["value"]["shape"], item, f"{prefix}{index}.{value_name}.")
    else:
        yield prefix.removesuffix("."), str(value)


def _parameter(member: str, shape: str) -> str:
    singular = {"Attributes": "Attribute", "MessageAttributes": "MessageAttribute", "Tags": "Tag", "tags": "Tag"}
    singular["MessageSystemAttributes"] = "MessageSystemAttribute"
    return singular.get(member) or LIST_ELEMENTS.get(shape) or member


@QUIET
@given(name=st.sampled_from(NAMES), members=st.dictionaries(st.sampled_from(["QueueUrl", "Entries", "Tags"]), JUNK))
def test_members_of_any_type_in_json(service: Harness, name: str, members: dict[str, Any]) -> None:
    check(serve(service, _json(name, json.dumps(members).encode())))


@QUIET
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=200))
def test_any_bytes_in_json(service: Harness, name: str, body: bytes) -> None:
    check(serve(service, _json(name, body)))


PARAMETER_NAMES = st.text(alphabet=string.ascii_letters + "0123456789.", max_size=30)


@QUIET
@given(
    name=st.sampled_from([*NAMES, "Fly"]),
    pairs=st.lists(
        st.tuples(
            st.one_of(
                PARAMETER_NAMES,
                st.sampled_from(["Tag.1.Key", "Tag.1", "Attribute.1.Name", "SendMessageBatchRequestEntry.1.Id"]),
            ),
            TEXTS,
        ),
        max_size=6,
    ),
)
def test_any_parameters_in_query(service: Harness, name: str, pairs: list[tuple[str, str]]) -> None:
    form = "&".join(f"{key}={quote(value, errors='replace')}" for key, value in [("Action", name), *pairs])
    check(serve(service, FakeRequest(target="/000000000000/q", body=form.encode())))


@QUIET
@given(body=st.binary(max_size=200), query=st.text(alphabet=string.printable.strip(), max_size=50))
def test_any_bytes_in_query(service: Harness, body: bytes, query: str) -> None:
    check(serve(service, FakeRequest(target=f"/?{query}", body=body)))


@QUIET
@given(
    headers=st.dictionaries(
        st.sampled_from([b"x-amz-target", b"content-type", b"authorization", b"host", b"x-amzn-trace-id"]),
        st.one_of(st.binary(max_size=40), st.sampled_from([b"AmazonSQS.ListQueues", b"application/x-amz-json-1.0"])),
    ),
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    path=st.text(alphabet=string.printable.strip().replace("?", ""), max_size=30),
)
def test_any_headers(service: Harness, headers: dict[bytes, bytes], method: str, path: str) -> None:
    check(serve(service, FakeRequest(method=method, target=f"/{path}", headers={b"host": b"localhost", **headers})))


# --- the codecs alone: only a Fault may escape ---


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=300))
def test_json_decoder_raises_only_faults(name: str, body: bytes) -> None:
    try:
        decoded = codec_json.decode(ACTIONS[name].decoder, body)
    except Fault:
        return
    assert isinstance(decoded, shapes.Shape)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=300))
def test_query_decoder_raises_only_faults(name: str, body: bytes) -> None:
    try:
        decoded = codec_query.decode(name, ACTIONS[name].shape, codec_query.parse(body))
    except Fault:
        return
    assert isinstance(decoded, shapes.Shape)


@settings(max_examples=1_000, deadline=None)
@given(st.text(alphabet="%%%=+&aAfF09g\n\r _é", max_size=12))
def test_url_decoder_says_what_the_standard_library_says(text: str) -> None:
    """Ours is there for its speed only."""
    raw = text.encode()
    pairs = [pair.partition(b"=") for pair in raw.split(b"&")]
    try:
        expected = [
            (unquote_to_bytes(name.replace(b"+", b" ")).decode(), unquote_to_bytes(value.replace(b"+", b" ")).decode())
            for name, _, value in pairs
            if name
        ]
    except UnicodeDecodeError:
        with pytest.raises(Fault):
            codec_query.parse(raw)
        return
    assert codec_query.parse(raw) == expected


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(max_size=30).map("http://localhost/{}".format)))
def test_reading_urls_never_raises(url: str) -> None:
    parse_url(url)


def _json(name: str, body: bytes) -> FakeRequest:
    headers = {b"host": b"localhost:9324", b"x-amz-target": f"AmazonSQS.{name}".encode()}
    return FakeRequest(headers=headers, body=body)
