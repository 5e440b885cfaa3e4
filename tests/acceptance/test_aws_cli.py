"""The aws command line, unchanged: `aws sqs … --endpoint-url`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S

AWS = Path(sys.executable).with_name("aws")


class Aws:
    """Runs `aws sqs` against one broker."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self._endpoint = endpoint
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(AWS), "sqs", *arguments, "--endpoint-url", self._endpoint, "--output", "json"]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def __call__(self, *arguments: str) -> Any:
        """The answer of a command that succeeds; None if it prints nothing."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture
def aws(endpoint: str, tmp_path: Path) -> Aws:
    assert AWS.exists(), "the aws CLI is a requirement of the tests: pip install awscli"
    return Aws(endpoint, tmp_path)


def test_send_receive_delete(aws: Aws, name: str) -> None:
    url = aws("create-queue", "--queue-name", name, "--attributes", "VisibilityTimeout=60")["QueueUrl"]
    attributes = json.dumps({"colour": {"DataType": "String", "StringValue": "red"}})
    sent = aws("send-message", "--queue-url", url, "--message-body", "hello", "--message-attributes", attributes)
    received = aws(
        "receive-message",
        *("--queue-url", url),
        *("--attribute-names", "All"),
        *("--message-attribute-names", "All"),
        *("--wait-time-seconds", "5"),
    )
    message = received["Messages"][0]
    assert message["MessageId"] == sent["MessageId"]
    assert message["MessageAttributes"]["colour"]["StringValue"] == "red"
    assert aws("delete-message", "--queue-url", url, "--receipt-handle", message["ReceiptHandle"]) is None
    counts = aws("get-queue-attributes", "--queue-url", url, "--attribute-names", "All")["Attributes"]
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "0"
    assert counts["VisibilityTimeout"] == "60"


def test_batch_with_a_failure(aws: Aws, name: str) -> None:
    url = aws("create-queue", "--queue-name", name)["QueueUrl"]
    entries = [{"Id": "good", "MessageBody": "a"}, {"Id": "late", "MessageBody": "b", "DelaySeconds": 901}]
    answer = aws("send-message-batch", "--queue-url", url, "--entries", json.dumps(entries))
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert [entry["Code"] for entry in answer["Failed"]] == ["InvalidParameterValue"]


def test_listing_goes_through_all_pages(aws: Aws, name: str) -> None:
    for n in range(3):
        aws("create-queue", "--queue-name", f"{name}-{n}")
    listed = aws("list-queues", "--queue-name-prefix", name, "--page-size", "1")
    assert len(listed["QueueUrls"]) == 3


def test_error_names_its_code(aws: Aws) -> None:
    done = aws.run("get-queue-url", "--queue-name", "nope")
    assert done.returncode in (254, 255)  # version 2, version 1
    assert "(AWS.SimpleQueueService.NonExistentQueue)" in done.stderr
    assert "The specified queue does not exist." in done.stderr
