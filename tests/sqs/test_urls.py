from __future__ import annotations

import pytest

from headrace.sqs.urls import Place, form_of, place_of_path, place_of_url

EU = "arn:aws:sqs:eu-west-1:123456789012:q"
US = "arn:aws:sqs:us-east-1:123456789012:q"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://localhost:9324/123456789012/q", Place(None, "123456789012", "q")),
        ("https://localhost/123456789012/q.fifo", Place(None, "123456789012", "q.fifo")),
        ("http://sqs.eu-west-1.localhost:9324/123456789012/q", Place("eu-west-1", "123456789012", "q")),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", Place("eu-west-1", "123456789012", "q")),
        ("https://sqs.us-gov-west-1.amazonaws.com/123456789012/q", Place("us-gov-west-1", "123456789012", "q")),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/q", Place("eu-west-1", "123456789012", "q")),
        ("https://queue.amazonaws.com/123456789012/q", Place("us-east-1", "123456789012", "q")),
        ("http://localhost/queue/eu-west-1/123456789012/q", Place("eu-west-1", "123456789012", "q")),
        ("http://localhost/queue/q", Place(None, None, "q")),
        ("http://[::1]:9324/123456789012/q", Place(None, "123456789012", "q")),
        ("http://localhost/123456789012/q/", Place(None, "123456789012", "q")),
        ("q", Place(None, None, "q")),
    ],
)
def test_every_form_is_read(url: str, place: Place) -> None:
    assert place_of_url(url) == place


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
    assert place_of_url(url) is None


@pytest.mark.parametrize(
    ("host", "path", "eu", "us"),
    [
        ("h:9324", "/", "http://h:9324/123456789012/q", "http://h:9324/123456789012/q"),
        (
            "sqs.eu-west-1.h:9324",
            "/",
            "http://sqs.eu-west-1.h:9324/123456789012/q",
            "http://sqs.us-east-1.h:9324/123456789012/q",
        ),
        ("eu-west-1.queue.h", "/", "http://eu-west-1.queue.h/123456789012/q", "http://queue.h/123456789012/q"),
        ("queue.h", "/", "http://eu-west-1.queue.h/123456789012/q", "http://queue.h/123456789012/q"),
        (
            "h",
            "/queue/eu-west-1/123456789012/q",
            "http://h/queue/eu-west-1/123456789012/q",
            "http://h/queue/us-east-1/123456789012/q",
        ),
        ("queue", "/", "http://queue/123456789012/q", "http://queue/123456789012/q"),
        ("sqs.eu-west-1", "/", "http://sqs.eu-west-1/123456789012/q", "http://sqs.eu-west-1/123456789012/q"),
        ("sqs.nowhere.h", "/", "http://sqs.nowhere.h/123456789012/q", "http://sqs.nowhere.h/123456789012/q"),
    ],
)
def test_urls_are_written_in_the_form_of_the_request(host: str, path: str, eu: str, us: str) -> None:
    place = place_of_path(path)
    form = form_of(host, place.region if place is not None else None, secure=False)
    assert (form.url(EU), form.url(US)) == (eu, us)


@pytest.mark.parametrize("host", ["h:9324", "sqs.eu-west-1.h:9324", "eu-west-1.queue.h", "queue.h"])
def test_what_is_written_is_read_as_the_same_queue(host: str) -> None:
    for arn in (EU, US):
        place = place_of_url(form_of(host, None, secure=True).url(arn))
        assert place is not None
        assert f"arn:aws:sqs:{place.region or arn.split(':')[3]}:{place.account}:{place.name}" == arn
