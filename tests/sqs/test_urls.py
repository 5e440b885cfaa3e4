"""Queue URLs: every form is read, the configured one is written, and two regions have two URLs."""

from __future__ import annotations

from typing import Any, Final

import pytest

from headrace.sqs.context import SqsOptions
from headrace.sqs.urls import QueueAddress, UrlForm, parse_path, parse_url, url_style
from tests.sqs.harness import ACCOUNT, Answer, FakeRequest, Harness, json_request

EU: Final = "arn:aws:sqs:eu-west-1:123456789012:q"
US: Final = "arn:aws:sqs:us-east-1:123456789012:q"
FORMS: Final[tuple[UrlForm, ...]] = ("standard", "domain", "path", "short-default")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:9324/123456789012/q", QueueAddress(None, "123456789012", "q")),
        ("https://localhost/123456789012/q.fifo", QueueAddress(None, "123456789012", "q.fifo")),
        ("http://sqs.eu-west-1.localhost:9324/123456789012/q", QueueAddress("eu-west-1", "123456789012", "q")),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", QueueAddress("eu-west-1", "123456789012", "q")),
        ("https://sqs.us-gov-west-1.amazonaws.com/123456789012/q", QueueAddress("us-gov-west-1", "123456789012", "q")),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/q", QueueAddress("eu-west-1", "123456789012", "q")),
        ("https://queue.amazonaws.com/123456789012/q", QueueAddress("us-east-1", "123456789012", "q")),
        ("http://localhost/queue/eu-west-1/123456789012/q", QueueAddress("eu-west-1", "123456789012", "q")),
        ("http://localhost/queue/q", QueueAddress(None, None, "q")),
        ("http://[::1]:9324/123456789012/q", QueueAddress(None, "123456789012", "q")),
        ("http://localhost/123456789012/q/", QueueAddress(None, "123456789012", "q")),
        ("q", QueueAddress(None, None, "q")),
    ],
)
def test_every_form_is_read(url: str, address: QueueAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://localhost/",
        "http://localhost/123456789012",
        "http://localhost/12345678901/q",
        "http://localhost/123456789012/q/more",
        "http://localhost/queue/nowhere/123456789012/q",
        "//localhost/123456789012/q",
        "file:///123456789012/q",
        "http:/localhost/123456789012/q",
        "/123456789012/q",
    ],
)
def test_other_urls_are_none(url: str) -> None:
    assert parse_url(url) is None


@pytest.mark.parametrize(
    ("form", "host", "eu", "us"),
    [
        ("short-default", "h:9324", "h:9324/queue/eu-west-1/123456789012/q", "h:9324/123456789012/q"),
        ("path", "h:9324", "h:9324/queue/eu-west-1/123456789012/q", "h:9324/queue/us-east-1/123456789012/q"),
        ("standard", "h:9324", "sqs.eu-west-1.h:9324/123456789012/q", "sqs.us-east-1.h:9324/123456789012/q"),
        ("domain", "h:9324", "eu-west-1.queue.h:9324/123456789012/q", "queue.h:9324/123456789012/q"),
        # An IP address has no names below it.
        ("standard", "127.0.0.1:1", "127.0.0.1:1/queue/eu-west-1/123456789012/q", "127.0.0.1:1/queue/us-east-1/123456789012/q"),
        ("domain", "[::1]:1", "[::1]:1/queue/eu-west-1/123456789012/q", "[::1]:1/queue/us-east-1/123456789012/q"),
        # No names of a service.
        ("short-default", "queue", "queue/queue/eu-west-1/123456789012/q", "queue/123456789012/q"),
        ("short-default", "sqs.eu-west-1", "sqs.eu-west-1/queue/eu-west-1/123456789012/q", "sqs.eu-west-1/123456789012/q"),
        ("short-default", "sqs.nowhere.h", "sqs.nowhere.h/queue/eu-west-1/123456789012/q", "sqs.nowhere.h/123456789012/q"),
    ],
)  # fmt: skip
def test_urls_have_the_configured_form(form: UrlForm, host: str, eu: str, us: str) -> None:
    style = url_style(host, None, secure=False, form=form)
    assert (style.url(EU), style.url(US)) == (f"http://{eu}", f"http://{us}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("host", "path", "eu", "us"),
    [
        ("sqs.eu-west-1.h:9324", "/", "sqs.eu-west-1.h:9324/123456789012/q", "sqs.us-east-1.h:9324/123456789012/q"),
        ("eu-west-1.queue.h", "/", "eu-west-1.queue.h/123456789012/q", "queue.h/123456789012/q"),
        ("queue.h", "/", "eu-west-1.queue.h/123456789012/q", "queue.h/123456789012/q"),
        ("h", "/queue/eu-west-1/123456789012/q", "h/queue/eu-west-1/123456789012/q", "h/queue/us-east-1/123456789012/q"),
    ],
)  # fmt: skip
def test_request_that_names_a_region_keeps_its_form(form: UrlForm, host: str, path: str, eu: str, us: str) -> None:
    address = parse_path(path)
    style = url_style(host, address.region if address is not None else None, secure=True, form=form)
    assert (style.url(EU), style.url(US)) == (f"https://{eu}", f"https://{us}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", ["h:9324", "127.0.0.1:9324", "sqs.eu-west-1.h:9324", "eu-west-1.queue.h", "queue.h"])
def test_written_urls_are_read_as_the_same_queue(host: str, form: UrlForm) -> None:
    for arn in (EU, US):
        address = parse_url(url_style(host, None, secure=True, form=form).url(arn))
        assert address is not None
        assert f"arn:aws:sqs:{address.region or 'us-east-1'}:{address.account}:{address.name}" == arn


# --- through the service ---


def signed(request: FakeRequest, region: str) -> FakeRequest:
    """`request` with a signature for `region`, which nobody checks."""
    scope = f"test/20260101/{region}/sqs/aws4_request"
    request.headers[b"authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00".encode()
    )
    return request


def in_json(harness: Harness, region: str, operation: str, **members: Any) -> Answer:
    return harness.serve(signed(json_request(operation, **members), region))


def in_query(harness: Harness, region: str, url: str, form: str) -> Answer:
    """A POST to the queue's URL, as clients do that connect to its host."""
    authority, _, path = url.removeprefix("http://").partition("/")
    request = FakeRequest(target=f"/{path}", headers={b"host": authority.encode()}, body=form.encode())
    return harness.serve(signed(request, region))


@pytest.mark.parametrize("form", FORMS)
def test_two_regions_have_two_urls(form: UrlForm) -> None:
    harness = Harness(options=SqsOptions(queue_urls=form))
    eu = in_json(harness, "eu-west-1", "CreateQueue", QueueName="q").json()["QueueUrl"]
    us = in_json(harness, "us-east-1", "CreateQueue", QueueName="q").json()["QueueUrl"]
    assert eu != us
    assert "eu-west-1" in eu
    assert in_query(harness, "eu-west-1", eu, "Action=SendMessage&MessageBody=a").status == 200
    assert b"<ReceiveMessageResult/>" in in_query(harness, "us-east-1", us, "Action=ReceiveMessage").body
    # A URL that names a region is read as that region's queue, whatever the signature names.
    assert in_json(harness, "us-east-1", "ReceiveMessage", QueueUrl=eu).json()["Messages"][0]["Body"] == "a"
    for region, url in (("eu-west-1", eu), ("us-east-1", us)):
        assert in_json(harness, region, "GetQueueUrl", QueueName="q").json()["QueueUrl"] == url
        assert in_json(harness, region, "ListQueues").json()["QueueUrls"] == [url]
    harness.close()


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_understood_whatever_is_chosen(form: UrlForm) -> None:
    harness = Harness(options=SqsOptions(queue_urls=form))
    in_json(harness, "eu-west-1", "CreateQueue", QueueName="q")
    for url in (
        f"http://localhost:9324/{ACCOUNT}/q",
        f"http://sqs.eu-west-1.localhost:9324/{ACCOUNT}/q",
        f"http://eu-west-1.queue.localhost:9324/{ACCOUNT}/q",
        f"http://localhost:9324/queue/eu-west-1/{ACCOUNT}/q",
        "http://localhost:9324/queue/q",
        "q",
    ):
        assert in_json(harness, "eu-west-1", "SendMessage", QueueUrl=url, MessageBody="a").status == 200
    harness.close()


@pytest.mark.parametrize("form", FORMS)
def test_host_of_a_request_keeps_its_form_in_the_answer(form: UrlForm) -> None:
    harness = Harness(options=SqsOptions(queue_urls=form))
    request = json_request("CreateQueue", QueueName="q")
    request.headers[b"host"] = b"sqs.eu-west-1.localhost:9324"
    url = f"http://sqs.eu-west-1.localhost:9324/{ACCOUNT}/q"
    assert harness.serve(request).json()["QueueUrl"] == url
    answer = in_query(harness, "eu-west-1", url, "Action=GetQueueUrl&QueueName=q")
    assert answer.xml().findtext("GetQueueUrlResult/QueueUrl") == url
    harness.close()
