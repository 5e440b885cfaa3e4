"""Every row of the table, on every store and in both protocols; a sample through boto3."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from headrace.testing.postgres import find_programs
from headrace.testing.stores import POSTGRES, STORES
from tests.sqs.harness import Boto3, Harness
from tests.sqs.query_model import current_model
from tests.sqs.table import attributes, batches, moves, permissions, protocol, queues, receipts, receive, send
from tests.sqs.table.callers import Boto3Client, Client, Outcome, Service
from tests.sqs.table.rows import (
    ACCOUNT,
    HOST,
    REGION,
    Advance,
    Call,
    Error,
    Expected,
    Http,
    Row,
    Step,
    differs,
    filled,
)

_MODEL: Final = ServiceModel(current_model(), "sqs")


def sendable(call: Call | Http) -> bool:
    """Whether boto3 sends such a request; it refuses what lacks a required member."""
    if isinstance(call, Http):
        return False
    shape = _MODEL.operation_model(call.operation).input_shape
    return not ParamValidator().validate(filled(call.members, str), shape).has_errors()


ROWS: Final[tuple[Row, ...]] = (
    *queues.ROWS,
    *attributes.ROWS,
    *send.ROWS,
    *receive.ROWS,
    *receipts.ROWS,
    *batches.ROWS,
    *moves.ROWS,
    *permissions.ROWS,
    *protocol.ROWS,
)
CASES: Final = [(row, protocol) for row in ROWS for protocol in row.protocols]
SAMPLE: Final = [row for row in ROWS if len(row.protocols) == 2 and not row.cooldowns and sendable(row.call)][::5]

_numbers: Final = itertools.count(1)


class Run:
    """One run of a row: queues of its own, and what it has saved."""

    def __init__(self, client: Client | Boto3Client, service: Service | Harness) -> None:
        self._client = client
        self._service = service
        self._prefix = f"t{next(_numbers)}-"
        self._saved: dict[str, Any] = {}

    def run(self, row: Row) -> None:
        for step in row.setup:
            outcome = self.do(step)
            assert outcome.status == 200, f"{step} was refused: {outcome}"
        self.check(row.call, row.expected)
        for step, expected in row.then:
            self.check(step, expected)

    def check(self, step: Step, expected: Expected) -> None:
        found = self.do(step)
        wanted = filled(expected, self._find)
        if isinstance(wanted, Error):
            assert (found.code, found.status) == (wanted.code, wanted.status), found
            assert not (text := differs(wanted.message, found.message)), text
            return
        assert found.status == 200 or isinstance(step, Http), found
        assert not (text := differs(wanted, found.members)), text

    def do(self, step: Step) -> Outcome:
        if isinstance(step, Advance):
            for _ in range(20):  # in steps, as time passes for a broker
                self._service.advance(round(step.seconds * 50))
            return Outcome(200, {})
        if isinstance(step, Http):
            assert isinstance(self._service, Service)
            target, body = filled(step.target, self._find), filled(step.body, self._find)
            answer = self._service.http(Http(step.method, target, step.headers, body))
            outcome = Outcome(200, answer)
        else:
            outcome = self._client.call(step.operation, filled(step.members, self._find))
        if step.save:
            self._saved[step.save] = outcome.members
        return outcome

    def _find(self, reference: str) -> Any:
        kind, colon, name = reference.partition(":")
        if colon:
            name = self._prefix + name
            forms = {"name": "", "url": f"http://{HOST}/{ACCOUNT}/", "arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:"}
            return forms[kind] + name
        saved, *path = reference.split(".")
        value = self._saved[saved]
        for part in path:
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value


@pytest.fixture(scope="module")
def models(query_models: Path) -> dict[str, ServiceModel]:
    query = Loader(extra_search_paths=[str(query_models)])
    query.search_paths.insert(0, str(query_models))
    return {
        "json": ServiceModel(current_model(), "sqs"),
        "query": ServiceModel(query.load_service_model("sqs", "service-2"), "sqs"),
    }


@pytest.fixture(scope="module", params=STORES, ids=[kind.name for kind in STORES])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Service]]:
    """A service over each kind of store, with cool-downs and without: made once, since rows have their own queues."""
    kind = request.param
    if kind is POSTGRES and not os.environ.get("CI") and find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    made = {
        cooldowns: Service(kind, tmp_path_factory.mktemp("store"), cooldowns=cooldowns) for cooldowns in (False, True)
    }
    yield made
    for service in made.values():
        service.close()


@pytest.mark.parametrize(("row", "protocol"), CASES, ids=[f"{row.name} [{protocol}]" for row, protocol in CASES])
def test_row(row: Row, protocol: str, services: dict[bool, Service], models: dict[str, ServiceModel]) -> None:
    service = services[row.cooldowns]
    spoken = protocol if protocol in models else "json"
    Run(Client(service, spoken, models[spoken]), service).run(row)


@pytest.mark.parametrize("row", SAMPLE, ids=[row.name for row in SAMPLE])
def test_row_through_boto3(row: Row, boto3_clients: Boto3, harness: Harness) -> None:
    boto3_clients.harness = harness
    Run(Boto3Client(boto3_clients.client), harness).run(row)


def test_every_operation_has_rows() -> None:
    named = {row.call.operation for row in ROWS if isinstance(row.call, Call)}
    assert named == current_model()["operations"].keys()


def test_names_of_rows_are_distinct() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_row_has_a_source() -> None:
    assert [row.name for row in ROWS if len(row.source) < 12] == []
