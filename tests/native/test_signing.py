from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

import headrace
from headrace.native import protocol
from headrace.native.endpoint import Endpoint
from headrace.native.exchange import RequestWriter
from headrace.native.signing import Credentials, Signer

KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = datetime(2026, 11, 24, 8, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 100])
def test_signature_is_the_one_that_botocore_makes(body: bytes) -> None:
    url = "http://broker.example:9324" + protocol.CALL_PATH
    request = AWSRequest("POST", url, data=body, headers={"host": "broker.example:9324"})
    with patch("botocore.auth.get_current_datetime", return_value=NOW):
        SigV4Auth(BotoCredentials(KEY.access_key, KEY.secret_key), "sqs", "us-east-1").add_auth(request)

    ours = Signer(KEY, "broker.example:9324", NOW.timestamp).headers("POST", protocol.CALL_PATH, body)

    lines = dict(line.split(": ", 1) for line in ours.decode().splitlines())
    assert lines == {"X-Amz-Date": request.headers["X-Amz-Date"], "Authorization": request.headers["Authorization"]}


def test_secret_is_neither_sent_nor_shown() -> None:
    request = RequestWriter(Endpoint("h"), KEY).call(b"body", None)

    assert KEY.access_key.encode() in request
    assert KEY.secret_key.encode() not in request
    assert KEY.secret_key not in repr(KEY)


def test_unix_socket_needs_no_signature() -> None:
    assert b"Authorization" not in RequestWriter(Endpoint("localhost", unix_path="/s"), KEY).call(b"body", None)


def test_connect_takes_a_key() -> None:
    with headrace.connect("http://127.0.0.1:1", key=("AKID", "secret"), patience=0) as client:
        assert b"Credential=AKID/" in client._transport._nodes[0].writer.statistics()  # type: ignore[attr-defined]
