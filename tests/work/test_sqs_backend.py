"""Tasks over SQS's API alone: headrace's own broker by boto3, and Moto as another server. What it lacks is refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from moto import mock_aws

from headrace.errors import InvalidParameter, OutcomeUnknown, Unavailable
from headrace.queue import attributes
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact
from headrace.work import App, NotSupported, chain, group, keys, sqs_address, support
from headrace.work.app import open_backend
from headrace.work.sqs_backend import SqsBackend
from tests.broker_process import broker


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture(scope="module", params=["headrace", "moto"])
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, credentials: None
) -> Iterator[str]:
    if request.param == "headrace":
        with broker(tmp_path_factory.mktemp("sqs") / "data", "--cooldowns", "off") as running:
            yield f"sqs+{running.url}"
        return
    with mock_aws():
        yield "sqs://us-east-1"


@pytest.fixture
def app(endpoint: str, request: pytest.FixtureRequest) -> Iterator[App]:
    queue = f"q{zlib.crc32(request.node.nodeid.encode())}"
    with App(endpoint, queue=queue, retries=1, backoff=0) as app:
        yield app


def test_a_task_goes_through_and_a_failed_one_is_retried_then_dead(app: App) -> None:
    ran: list[str] = []

    @app.task(name="greet")
    def greet(name: str) -> None:
        ran.append(name)
        if name == "Bob":
            raise ValueError("not him")

    greet.send("Ada ✓")
    greet.send_many([(f"n{n}",) for n in range(12)])
    greet.send("Bob")
    dispositions = sorted((run.disposition for run in app.run_pending()), reverse=True)
    assert dispositions == [*["succeeded"] * 13, "retried", "dead"]
    assert sorted(ran) == sorted(["Ada ✓", *(f"n{n}" for n in range(12)), "Bob", "Bob"])
    [(_, [letter])] = app.backend.receive([f"{greet.defaults.queue}-dead"], 10, visibility_ms=60_000, wait_s=2)
    told = attributes.decode(letter.message.attributes)
    assert told["headrace-error"] == ("String", "ValueError")
    assert app.run_pending() == []


def test_chains_and_priorities_work(app: App) -> None:
    ran: list[str] = []

    @app.task(name="step")
    def step(before: str, mine: str = "") -> str:
        ran.append(before + mine)
        return before + mine

    step.send("low")
    step.options(priority=1).send("high")
    handle = chain(step.s("a"), step.s(mine="b")).send()
    app.run_pending()
    assert ran[0] == "high" and sorted(ran) == ["a", "ab", "high", "low"]
    with pytest.raises(NotSupported, match="result"):
        app.handle(handle.id).result(0)


def test_a_lease_is_extended_and_given_back(app: App) -> None:
    backend = app.backend
    backend.send("leases", [Entry(b"one")])
    [(_, [first])] = backend.receive(["leases"], 1, visibility_ms=60_000, wait_s=2)
    assert backend.receive(["leases"], 1, visibility_ms=60_000, wait_s=0) == []
    assert backend.change_visibility("leases", [(first.receipt, 0)]) == [None]
    [(_, [second])] = backend.receive(["leases"], 1, visibility_ms=60_000, wait_s=2)
    assert second.receives == 2 and second.message.body == b"one"
    backend.transact(Transact([(arn_of("leases"), [second.receipt])]))
    backend.change_visibility("leases", [(second.receipt, 0)])
    assert backend.receive(["leases"], 1, visibility_ms=60_000, wait_s=0) == []


def test_what_sqs_lacks_is_refused_by_name_and_nothing_is_sent(app: App) -> None:
    @app.task(name="plain")
    def plain(n: int = 0) -> None:
        pass

    @app.task(name="rated", rate="1/s")
    def rated() -> None:
        pass

    def refused(feature: str, send: Any) -> None:
        with pytest.raises(NotSupported, match=feature):
            send()

    refused("result_ttl=", lambda: plain.options(result_ttl="1h").send())
    refused("unique=", lambda: plain.options(unique="x").send())
    refused("rate=", rated.send)
    refused("a group", lambda: group([plain.si(1), plain.si(2)]).send())
    refused("a delay of more than 900 s", lambda: plain.options(delay="1h").send())
    refused("cancel", lambda: plain.send(1).cancel())
    refused("rated", lambda: support.check_app(app, app.backend))
    assert [run.task for run in app.run_pending()] == ["plain"]


def test_a_worker_with_schedules_refuses_to_start(app: App) -> None:
    @app.every("1m")
    @app.task(name="tick")
    def tick() -> None:
        pass

    with pytest.raises(NotSupported, match="a schedule"):
        support.check_app(app, app.backend)


def test_state_is_never_written_silently(app: App) -> None:
    with pytest.raises(NotSupported, match="a schedule"):
        app.backend.transact(Transact(state=[(keys.schedule("x"), b"{}")], name=keys.NAME))
    assert app.backend.state(keys.SCHEDULE) == [] and app.backend.read(keys.result("x")) is None


def test_a_queue_that_was_deleted_is_made_again(app: App) -> None:
    backend = app.backend
    assert isinstance(backend, SqsBackend)
    backend.send("gone", [Entry(b"one")])
    backend._client.delete_queue(QueueUrl=backend._urls["gone"])
    backend.send("gone", [Entry(b"two")])
    [(_, [found])] = backend.receive(["gone"], 1, visibility_ms=60_000, wait_s=2)
    assert found.message.body == b"two"


def test_errors_of_the_endpoint_are_headraces_own(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_backend("sqs+http://127.0.0.1:9").send("q", [Entry(b"x")])


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("sqs://eu-west-1", ("eu-west-1", None)),
        ("https://sqs.eu-central-1.amazonaws.com/123456789012/q", ("eu-central-1", None)),
        ("sqs+http://localhost:4566", (None, "http://localhost:4566")),
    ],
)
def test_addresses_are_read(target: str, place: tuple[str | None, str | None]) -> None:
    assert sqs_address.is_sqs(target) and sqs_address.parse(target) == place


@pytest.mark.parametrize("target", ["http://localhost:9324", "./data", "sqs://", "sqs://a/b/c"])
def test_other_brokers_are_not_taken_for_sqs(target: str) -> None:
    assert not sqs_address.is_sqs(target)
    with pytest.raises(InvalidParameter, match="sqs://REGION"):
        sqs_address.parse(target)


@pytest.mark.parametrize(
    ("code", "status", "means"),
    [
        ("InternalFailure", 500, OutcomeUnknown),
        ("ServiceUnavailable", 503, Unavailable),
        ("Throttling", 400, Unavailable),
    ],
)
def test_only_what_was_refused_beforehand_is_known_not_to_be_done(
    code: str, status: int, means: type[Exception]
) -> None:
    with mock_aws():
        backend = SqsBackend("sqs://us-east-1")
        backend.prepare("tasks")
        with Stubber(backend._client) as answers:
            answers.add_client_error("send_message_batch", code, "no", status)
            with pytest.raises(means):
                backend.send("tasks", [Entry(b"x")])
        backend.close()
