"""A broker with keys and certificates: who gets in, by which door, and to which queues."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import headrace
from headrace.errors import AccessDenied
from tests.broker_process import BrokerProcess, broker, run_to_end
from tests.patience import PATIENCE_S

SECRET, OTHER_SECRET = "a secret of some length", "another secret of some length"


def write_keys(path: Path, **ids: str) -> Path:
    principals = [
        {"name": name, "operator": name == "operator", "keys": [{"id": f"AKIA{name.upper()}", "secret": secret}]}
        for name, secret in ids.items()
    ]
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({"principals": principals}))
    fresh.replace(path)
    return path


@contextmanager
def client(one: BrokerProcess, name: str, secret: str = SECRET) -> Iterator[Any]:
    made = boto3.client(
        "sqs",
        endpoint_url=one.url,
        region_name="eu-west-1",
        aws_access_key_id=f"AKIA{name.upper()}",
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )
    try:
        yield made
    finally:
        made.close()


def outcome(call: Callable[..., Any], **parameters: Any) -> str:
    """`OK`, or the error code that boto3 sees."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "OK"


def list_queues(one: BrokerProcess, name: str, secret: str) -> str:
    with client(one, name, secret) as sqs:
        return outcome(sqs.list_queues)


def test_with_keys_everybody_must_sign(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", alice=SECRET)
    with broker(tmp_path / "data", "--keys", str(keys)) as one:
        assert list_queues(one, "alice", SECRET) == "OK"
        assert list_queues(one, "alice", OTHER_SECRET) == "SignatureDoesNotMatch"
        assert list_queues(one, "eve", SECRET) == "InvalidClientTokenId"
        status, body = one.get("/?Action=ListQueues")
        assert (status, b"MissingAuthenticationToken" in body) == (403, True)
        assert SECRET not in "".join(one.raw)


def test_with_keys_the_native_api_is_for_the_socket_and_operators(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", alice=SECRET)
    call = json.dumps({"type": "ListQueues"}).encode()
    with broker(tmp_path / "data", "--keys", str(keys)) as one:
        headers = {"Content-Type": "application/json"}
        status, body = one.get("/headrace/v1/call", method="POST", body=call, headers=headers)
        assert (status, json.loads(body)["error"]) == (403, "AccessDenied")
        assert one.get("/headrace/v1/statistics")[0] == 403
        status, body = one.get_by_socket("/headrace/v1/call", method="POST", body=call, kind="application/json")
        assert (status, json.loads(body)) == (200, [])


def test_operators_sign_native_calls(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", alice=SECRET, operator=OTHER_SECRET)
    with broker(tmp_path / "data", "--keys", str(keys)) as one:
        with headrace.connect(one.url, key=("AKIAOPERATOR", OTHER_SECRET)) as client:
            client.queue("orders", create=True).send("by an operator")
        for key in (None, ("AKIAALICE", SECRET), ("AKIAOPERATOR", SECRET)):
            with headrace.connect(one.url, key=key) as client, pytest.raises(AccessDenied):
                client.queue("orders").counts()
        with headrace.connect(f"unix://{one.data}/headrace.sock") as client:
            assert client.queue("orders").counts().visible == 1


def test_hangup_reloads_keys_and_keeps_the_old_ones_if_it_cannot(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", alice=SECRET)
    with broker(tmp_path / "data", "--keys", str(keys)) as one:
        write_keys(keys, bob=OTHER_SECRET)
        one.signal(signal.SIGHUP)
        one.wait_for("broker.reloaded")
        assert list_queues(one, "bob", OTHER_SECRET) == "OK"
        assert list_queues(one, "alice", SECRET) == "InvalidClientTokenId"
        keys.chmod(0o644)
        one.signal(signal.SIGHUP)
        assert "mode 0644" in one.wait_for("broker.reload_failed")["message"]
        assert list_queues(one, "bob", OTHER_SECRET) == "OK"


def certificate(folder: Path, *, password: str | None = None) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    openssl += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    openssl += ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run(openssl, check=True, capture_output=True, timeout=PATIENCE_S)
    return cert, key


def test_tls_serves_and_refuses_plain_and_old(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    keys = write_keys(tmp_path / "keys.json", alice=SECRET)
    arguments = ("--host", "0.0.0.0", "--keys", str(keys), "--certfile", str(cert), "--keyfile", str(key))
    with broker(tmp_path / "data", *arguments) as one:
        assert one.url.startswith("https://0.0.0.0:")
        context = ssl.create_default_context(cafile=str(cert))
        assert one.get_secure("/health/ready", context) == (200, b'{"status":"ready"}\n')
        with pytest.raises((OSError, http.client.HTTPException)):
            one.get("/health/ready")
        one.signal(signal.SIGHUP)
        one.wait_for("broker.reloaded")
        assert one.get_secure("/health/ready", context)[0] == 200


def test_an_encrypted_key_is_refused_instead_of_waiting_for_a_password(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, password="secret")
    ended = run_to_end("--data", "data", "--certfile", str(cert), "--keyfile", str(key), cwd=tmp_path)
    assert ended.returncode == 2
    assert "is encrypted" in " ".join(ended.stderr.split())


# ----------------------------------------------------------------------------------------------------------- policies

OWNER, OTHER = "111122223333", "444455556666"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with an owner, a stranger of another account, and a principal who may only send to `in-*`."""
    folder = tmp_path_factory.mktemp("guarded")
    principals = [
        {"name": "owner", "account": OWNER, "keys": [{"id": "AKIAOWNER", "secret": SECRET}]},
        {"name": "bob", "account": OTHER, "keys": [{"id": "AKIABOB", "secret": SECRET}]},
        {
            "name": "sender",
            "account": OWNER,
            "actions": ["SendMessage", "GetQueueUrl"],
            "queues": ["in-*"],
            "keys": [{"id": "AKIASENDER", "secret": SECRET}],
        },
    ]
    keys = folder / "keys.json"
    keys.touch(mode=0o600)
    keys.write_text(json.dumps({"principals": principals}))
    with broker(folder / "data", "--keys", str(keys)) as one:
        yield one


def test_another_account_needs_a_permission_and_loses_it_again(guarded: BrokerProcess) -> None:
    with client(guarded, "owner") as owner, client(guarded, "bob") as bob:
        url = owner.create_queue(QueueName="shared")["QueueUrl"]
        assert f"/{OWNER}/shared" in url
        message = {"QueueUrl": url, "MessageBody": "x"}
        batch = {"QueueUrl": url, "Entries": [{"Id": "a", "MessageBody": "x"}]}
        assert outcome(bob.send_message, **message) == "AccessDenied"
        owner.add_permission(QueueUrl=url, Label="bob", AWSAccountIds=[OTHER], Actions=["SendMessage"])
        assert outcome(bob.send_message, **message) == "OK"
        assert outcome(bob.send_message_batch, **batch) == "OK"
        assert outcome(bob.receive_message, QueueUrl=url) == "AccessDenied"
        assert outcome(bob.delete_queue, QueueUrl=url) == "AccessDenied"
        assert outcome(bob.remove_permission, QueueUrl=url, Label="bob") == "AccessDenied"
        owner.remove_permission(QueueUrl=url, Label="bob")
        assert outcome(bob.send_message, **message) == "AccessDenied"


def test_a_deny_in_the_policy_holds_for_the_owner_too(guarded: BrokerProcess) -> None:
    with client(guarded, "owner") as owner:
        url = owner.create_queue(QueueName="sealed")["QueueUrl"]
        deny = {"Effect": "Deny", "Principal": "*", "Action": "SQS:SendMessage", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        assert outcome(owner.send_message, QueueUrl=url, MessageBody="x") == "OK"
        owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        assert outcome(owner.send_message, QueueUrl=url, MessageBody="x") == "AccessDenied"
        assert outcome(owner.receive_message, QueueUrl=url) == "OK"
        owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
        assert outcome(owner.send_message, QueueUrl=url, MessageBody="x") == "OK"


def test_the_keys_file_bounds_actions_and_queues(guarded: BrokerProcess) -> None:
    with client(guarded, "owner") as owner, client(guarded, "sender") as sender:
        mine = owner.create_queue(QueueName="in-1")["QueueUrl"]
        other = owner.create_queue(QueueName="out-1")["QueueUrl"]
        assert outcome(sender.send_message, QueueUrl=mine, MessageBody="x") == "OK"
        assert outcome(sender.get_queue_url, QueueName="in-1") == "OK"
        assert outcome(sender.send_message, QueueUrl=other, MessageBody="x") == "AccessDenied"
        assert outcome(sender.receive_message, QueueUrl=mine) == "AccessDenied"
        assert outcome(sender.create_queue, QueueName="in-2") == "AccessDenied"
        assert outcome(sender.list_queues) == "AccessDenied"


def test_accounts_do_not_see_each_others_queues(guarded: BrokerProcess) -> None:
    with client(guarded, "owner") as owner, client(guarded, "bob") as bob:
        owner.create_queue(QueueName="private")
        assert "QueueUrls" not in bob.list_queues()
        assert outcome(bob.get_queue_url, QueueName="private") != "OK"
        assert outcome(bob.get_queue_url, QueueName="private", QueueOwnerAWSAccountId=OWNER) == "AccessDenied"
