from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sqs.harness import Boto3, FakeRequest, Harness, json_request, refused

FIFO = {"FifoQueue": "true"}
NAME_RULE = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
FIFO_RULE = (
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo "
    "suffix and be 1 to 80 in length."
)


@pytest.fixture
def cool(boto3_clients: Boto3) -> Iterator[tuple[Harness, Any]]:
    """A service with AWS's cool-downs, and a client of it."""
    harness = Harness(cooldowns=True)
    boto3_clients.harness = harness
    yield harness, boto3_clients.client
    harness.close()


# --- create ---


def test_create_answers_the_url(sqs: Any) -> None:
    assert sqs.create_queue(QueueName="orders")["QueueUrl"] == "http://localhost:9324/000000000000/orders"
    assert sqs.create_queue(QueueName="o.fifo", Attributes=FIFO)["QueueUrl"].endswith("/000000000000/o.fifo")


def test_create_again_is_the_same_queue(sqs: Any) -> None:
    attributes = {"DelaySeconds": "1", "VisibilityTimeout": "1800"}
    first = sqs.create_queue(QueueName="q", Attributes=attributes)
    assert sqs.create_queue(QueueName="q")["QueueUrl"] == first["QueueUrl"]
    assert sqs.create_queue(QueueName="q", Attributes=attributes)["QueueUrl"] == first["QueueUrl"]
    assert sqs.create_queue(QueueName="q", Attributes={"ReceiveMessageWaitTimeSeconds": "0"}) is not None


@pytest.mark.parametrize("spelling", ["True", "TRUE", "tRuE"])
def test_booleans_are_accepted_in_any_case_and_read_back_in_lower_case(sqs: Any, spelling: str) -> None:
    names = ["ContentBasedDeduplication", "FifoQueue", "SqsManagedSseEnabled"]
    url = sqs.create_queue(QueueName="q.fifo", Attributes=dict.fromkeys(names, spelling))["QueueUrl"]
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert shown == dict.fromkeys(names, "true")
    sqs.create_queue(QueueName="q.fifo", Attributes=dict.fromkeys(names, "true"))
    changed = {"ContentBasedDeduplication": "False", "SqsManagedSseEnabled": "FALSE", "FifoQueue": spelling}
    sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert shown == {"ContentBasedDeduplication": "false", "FifoQueue": "true", "SqsManagedSseEnabled": "false"}


@pytest.mark.parametrize("name", ["ContentBasedDeduplication", "SqsManagedSseEnabled"])
def test_other_words_are_no_booleans(sqs: Any, name: str) -> None:
    seen = refused(sqs.create_queue, QueueName="q.fifo", Attributes={"FifoQueue": "true", name: "yes"})
    assert (seen.code, seen.message) == ("InvalidAttributeValue", f"Invalid value for the parameter {name}.")


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"VisibilityTimeout": "30"}, {"VisibilityTimeout": "030"}),
        ({"VisibilityTimeout": "030"}, {"VisibilityTimeout": "30"}),
        ({"MessageRetentionPeriod": "345600"}, {"MessageRetentionPeriod": "0345600"}),
        ({"DelaySeconds": "0"}, {"DelaySeconds": "000"}),
        ({"MaximumMessageSize": "2048"}, {"MaximumMessageSize": "02048"}),
        ({"ReceiveMessageWaitTimeSeconds": "05"}, {"ReceiveMessageWaitTimeSeconds": "5"}),
        ({"KmsMasterKeyId": "key"}, {"KmsMasterKeyId": "key", "KmsDataKeyReusePeriodSeconds": "0300"}),
        (
            {"KmsMasterKeyId": "key", "KmsDataKeyReusePeriodSeconds": "0600"},
            {"KmsMasterKeyId": "key", "KmsDataKeyReusePeriodSeconds": "600"},
        ),
    ],
)
def test_create_compares_numbers_as_numbers(sqs: Any, first: dict[str, str], again: dict[str, str]) -> None:
    url = sqs.create_queue(QueueName="q", Attributes=first)["QueueUrl"]
    assert sqs.create_queue(QueueName="q", Attributes=again)["QueueUrl"] == url
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(first))["Attributes"]
    assert shown == {name: text if name == "KmsMasterKeyId" else str(int(text)) for name, text in first.items()}


def test_create_compares_max_receive_count_as_a_number(sqs: Any) -> None:
    sqs.create_queue(QueueName="dead")
    arn = "arn:aws:sqs:us-east-1:000000000000:dead"

    def create(count: str) -> str:
        policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": {count}}}'
        return str(sqs.create_queue(QueueName="q", Attributes={"RedrivePolicy": policy})["QueueUrl"])

    url = create("5")
    assert create('"5"') == create('"05"') == url
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert shown == f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":5}}'


def test_create_with_another_value_is_refused(sqs: Any) -> None:
    sqs.create_queue(QueueName="q", Attributes={"DelaySeconds": "1"})
    seen = refused(sqs.create_queue, QueueName="q", Attributes={"DelaySeconds": "2"})
    assert (seen.code, seen.status, seen.exception) == ("QueueAlreadyExists", 400, "QueueNameExists")
    assert seen.message == "A queue already exists with the same name and a different value for attribute DelaySeconds"


@pytest.mark.parametrize(
    ("attributes", "same"),
    [
        ({"SqsManagedSseEnabled": "true"}, True),
        ({"SqsManagedSseEnabled": "false"}, False),
        ({"KmsMasterKeyId": "key"}, False),
        ({"Policy": ""}, True),
        ({"RedrivePolicy": ""}, True),
    ],
)
def test_create_compares_with_defaults_that_are_stored_nowhere(
    sqs: Any, attributes: dict[str, str], same: bool
) -> None:
    sqs.create_queue(QueueName="q")
    if same:
        sqs.create_queue(QueueName="q", Attributes=attributes)
    else:
        assert refused(sqs.create_queue, QueueName="q", Attributes=attributes).code == "QueueAlreadyExists"


def test_create_with_the_same_policy_in_another_spelling_is_the_same_queue(sqs: Any) -> None:
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"SQS:*","Resource":"*"}]}'
    sqs.create_queue(QueueName="q", Attributes={"Policy": policy})
    sqs.create_queue(QueueName="q", Attributes={"Policy": policy.replace(":", ": ", 1)})
    other = policy.replace("Allow", "Deny")
    assert refused(sqs.create_queue, QueueName="q", Attributes={"Policy": other}).code == "QueueAlreadyExists"


@pytest.mark.parametrize(
    ("name", "attributes", "rule"),
    [
        ("a b", {}, NAME_RULE),
        ("x" * 81, {}, NAME_RULE),
        ("q.fifo", {}, NAME_RULE),
        ("q.fifo", {"FifoQueue": "false"}, NAME_RULE),
        ("é", {}, NAME_RULE),
        ("a/b", {}, NAME_RULE),
        ("q", FIFO, FIFO_RULE),
        (".fifo", FIFO, FIFO_RULE),
        ("x" * 76 + ".fifo", FIFO, FIFO_RULE),
    ],
)
def test_wrong_names_are_refused(sqs: Any, name: str, attributes: dict[str, str], rule: str) -> None:
    seen = refused(sqs.create_queue, QueueName=name, Attributes=attributes)
    assert (seen.code, seen.message) == ("InvalidParameterValue", rule)


def test_longest_names(sqs: Any) -> None:
    sqs.create_queue(QueueName="x" * 80)
    sqs.create_queue(QueueName="x" * 75 + ".fifo", Attributes=FIFO)


def test_name_is_required(sqs: Any) -> None:
    seen = refused(sqs.create_queue, QueueName="")
    assert (seen.code, seen.message) == ("InvalidParameterValue", "Queue name cannot be empty")


@pytest.mark.parametrize(
    ("attributes", "code", "message"),
    [
        ({"FifoQueue": "false"}, "InvalidAttributeName", "Unknown Attribute FifoQueue."),
        ({"ContentBasedDeduplication": "true"}, "InvalidAttributeName", "Unknown Attribute ContentBasedDeduplication."),
        (
            {"DeduplicationScope": "queue"},
            "InvalidAttributeName",
            "You can specify the DeduplicationScope only when FifoQueue is set to true.",
        ),
        (
            {"FifoThroughputLimit": "perQueue"},
            "InvalidAttributeName",
            "You can specify the FifoThroughputLimit only when FifoQueue is set to true.",
        ),
        ({"Colour": "red"}, "InvalidAttributeName", "Unknown Attribute Colour."),
        ({"QueueArn": "x"}, "InvalidAttributeName", "Unknown Attribute QueueArn."),
        ({"All": "x"}, "InvalidAttributeName", "Unknown Attribute All."),
        ({"DelaySeconds": "901"}, "InvalidAttributeValue", "Invalid value for the parameter DelaySeconds."),
        ({"DelaySeconds": "1.5"}, "InvalidAttributeValue", "Invalid value for the parameter DelaySeconds."),
    ],
)
def test_wrong_attributes_are_refused(sqs: Any, attributes: dict[str, str], code: str, message: str) -> None:
    seen = refused(sqs.create_queue, QueueName="q", Attributes=attributes)
    assert (seen.code, seen.message, seen.status) == (code, message, 400)
    assert "QueueUrls" not in sqs.list_queues()


def test_create_with_tags(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", tags={"team": "red", "empty": ""})["QueueUrl"]
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "red", "empty": ""}


# --- delete, purge, cool-downs ---


def test_deleted_queue_is_gone(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.delete_queue(QueueUrl=url)
    seen = refused(sqs.delete_queue, QueueUrl=url)
    assert (seen.code, seen.exception) == ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    assert seen.message.startswith("The specified queue does not exist")


def test_purge_deletes_everything(harness: Harness, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    for body in ("waits", "is in flight"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    sqs.receive_message(QueueUrl=url)
    sqs.purge_queue(QueueUrl=url)
    harness.advance(30_000)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.purge_queue(QueueUrl=url)  # at once: this service has no cool-downs


def test_second_purge_within_a_minute_is_refused(cool: tuple[Harness, Any]) -> None:
    harness, sqs = cool
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    seen = refused(sqs.purge_queue, QueueUrl=url)
    assert (seen.code, seen.status) == ("AWS.SimpleQueueService.PurgeQueueInProgress", 403)
    assert seen.message == "Only one PurgeQueue operation on q is allowed every 60 seconds."
    assert seen.exception == "PurgeQueueInProgress"
    harness.advance(60_000)
    sqs.purge_queue(QueueUrl=url)


def test_create_within_a_minute_of_deleting_is_refused(cool: tuple[Harness, Any]) -> None:
    harness, sqs = cool
    sqs.delete_queue(QueueUrl=sqs.create_queue(QueueName="q")["QueueUrl"])
    seen = refused(sqs.create_queue, QueueName="q")
    assert (seen.code, seen.exception) == ("AWS.SimpleQueueService.QueueDeletedRecently", "QueueDeletedRecently")
    assert seen.message == (
        "You must wait 60 seconds after deleting a queue before you can create another with the same name."
    )
    harness.advance(60_000)
    sqs.create_queue(QueueName="q")


# --- find and list ---


def test_get_queue_url(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    assert sqs.get_queue_url(QueueName="q")["QueueUrl"] == url
    assert sqs.get_queue_url(QueueName="q", QueueOwnerAWSAccountId="000000000000")["QueueUrl"] == url
    for missing in (
        {"QueueName": "Q"},
        {"QueueName": "a b"},
        {"QueueName": "q", "QueueOwnerAWSAccountId": "111111111111"},
        {"QueueName": "q", "QueueOwnerAWSAccountId": "me"},
    ):
        assert refused(sqs.get_queue_url, **missing).exception == "QueueDoesNotExist"


def test_list_queues_by_prefix(sqs: Any) -> None:
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix="")
    for name in ("b1", "a1", "a2"):
        sqs.create_queue(QueueName=name)
    names = [url.rpartition("/")[2] for url in sqs.list_queues(QueueNamePrefix="a")["QueueUrls"]]
    assert names == ["a1", "a2"]
    assert len(sqs.list_queues(QueueNamePrefix="")["QueueUrls"]) == 3


def test_list_queues_in_pages(sqs: Any) -> None:
    for n in range(5):
        sqs.create_queue(QueueName=f"q{n}")
    pages = list(sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["QueueUrls"]) for page in pages] == [2, 2, 1]
    assert len({url for page in pages for url in page["QueueUrls"]}) == 5
    assert "NextToken" not in sqs.list_queues(MaxResults=5)
    assert "NextToken" not in sqs.list_queues()


def test_page_goes_on_after_its_last_queue_was_deleted(sqs: Any) -> None:
    urls = [sqs.create_queue(QueueName=f"q{n}")["QueueUrl"] for n in range(3)]
    token = sqs.list_queues(MaxResults=1)["NextToken"]
    sqs.delete_queue(QueueUrl=urls[0])
    assert sqs.list_queues(MaxResults=10, NextToken=token)["QueueUrls"] == urls[1:]


@pytest.mark.parametrize("max_results", [0, 1_001, -1])
def test_page_size_out_of_range_is_refused(sqs: Any, max_results: int) -> None:
    assert refused(sqs.list_queues, MaxResults=max_results).code == "InvalidParameterValue"


@pytest.mark.parametrize("token", ["x", "é", "YXJuOmF3cw==", "YXJuOmF3czpzcXM6dXMtZWFzdC0xOjAwMDAwMDAwMDAwMDpx="])
def test_token_that_is_none_is_refused(sqs: Any, token: str) -> None:
    seen = refused(sqs.list_queues, MaxResults=1, NextToken=token)
    assert seen.message == "Invalid or expired next token."


def test_list_dead_letter_source_queues(sqs: Any) -> None:
    target = sqs.create_queue(QueueName="dead")["QueueUrl"]
    policy = '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"3"}'
    sources = [sqs.create_queue(QueueName=f"s{n}", Attributes={"RedrivePolicy": policy})["QueueUrl"] for n in range(3)]
    assert sqs.list_dead_letter_source_queues(QueueUrl=target)["queueUrls"] == sources
    page = sqs.list_dead_letter_source_queues(QueueUrl=target, MaxResults=2)
    rest = sqs.list_dead_letter_source_queues(QueueUrl=target, MaxResults=2, NextToken=page["NextToken"])
    assert page["queueUrls"] + rest["queueUrls"] == sources
    assert sqs.list_dead_letter_source_queues(QueueUrl=sources[0]).get("queueUrls", []) == []


def test_sources_of_a_queue_without_any_are_an_empty_list(harness: Harness) -> None:
    # A required member of the answer: an SDK that trusts the model must find it.
    assert harness.json("ListDeadLetterSourceQueues", QueueUrl=harness.create()).json() == {"queueUrls": []}


# --- regions, accounts, forms of URLs ---


def request_as(access_key: str, region: str, host: str, operation: str, **members: Any) -> FakeRequest:
    request = json_request(operation, **members)
    credential = f"AWS4-HMAC-SHA256 Credential={access_key}/20261124/{region}/sqs/aws4_request, SignedHeaders=host"
    request.headers |= {b"authorization": credential.encode(), b"host": host.encode()}
    return request


def test_queues_of_regions_and_accounts_are_apart(harness: Harness) -> None:
    def names(key: str, region: str) -> list[str]:
        return list(harness.serve(request_as(key, region, "localhost", "ListQueues")).json().get("QueueUrls", []))

    harness.serve(request_as("key", "eu-west-1", "localhost", "CreateQueue", QueueName="q"))
    harness.serve(request_as("111111111111", "eu-west-1", "localhost", "CreateQueue", QueueName="q"))
    assert names("key", "eu-west-1") == ["http://localhost/queue/eu-west-1/000000000000/q"]
    assert names("111111111111", "eu-west-1") == ["http://localhost/queue/eu-west-1/111111111111/q"]
    assert names("key", "us-east-1") == []


def test_region_of_a_signature_is_that_of_the_queue(harness: Harness) -> None:
    url = harness.serve(request_as("key", "eu-west-1", "localhost", "CreateQueue", QueueName="q")).json()["QueueUrl"]
    answer = harness.serve(
        request_as("key", "eu-west-1", "localhost", "GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"])
    )
    assert answer.json()["Attributes"] == {"QueueArn": "arn:aws:sqs:eu-west-1:000000000000:q"}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:9324", "http://localhost:9324/queue/eu-west-1/000000000000/q"),
        ("sqs.eu-west-1.localhost:9324", "http://sqs.eu-west-1.localhost:9324/000000000000/q"),
        ("eu-west-1.queue.localhost", "http://eu-west-1.queue.localhost/000000000000/q"),
        ("queue.localhost", "http://eu-west-1.queue.localhost/000000000000/q"),
    ],
)
def test_url_is_answered_in_the_form_of_the_host_and_understood(harness: Harness, host: str, url: str) -> None:
    assert harness.serve(request_as("k", "eu-west-1", host, "CreateQueue", QueueName="q")).json() == {"QueueUrl": url}
    sent = harness.serve(request_as("k", "eu-west-1", host, "SendMessage", QueueUrl=url, MessageBody="a"))
    assert sent.status == 200


def test_region_of_an_unsigned_request_is_that_of_its_host(harness: Harness) -> None:
    request = json_request("CreateQueue", QueueName="q")
    request.headers[b"host"] = b"sqs.eu-north-1.localhost"
    assert harness.serve(request).json()["QueueUrl"] == "http://sqs.eu-north-1.localhost/000000000000/q"
    answer = harness.json("GetQueueUrl", QueueName="q")
    assert answer.code == "AWS.SimpleQueueService.NonExistentQueue"  # us-east-1 has no such queue


def test_region_path_form(harness: Harness) -> None:
    harness.serve(request_as("key", "eu-west-1", "localhost:9324", "CreateQueue", QueueName="q"))
    answer = harness.query("GetQueueUrl", {"QueueName": "q"}, path="/queue/eu-west-1/000000000000/other")
    url = answer.xml().findtext("GetQueueUrlResult/QueueUrl")
    assert url == "http://localhost:9324/queue/eu-west-1/000000000000/q"
    assert harness.json("SendMessage", QueueUrl=url, MessageBody="a").status == 200


def test_json_posted_to_the_queues_url_as_php_does(harness: Harness) -> None:
    url = harness.create()
    request = json_request("SendMessage", QueueUrl=url, MessageBody="a")
    request.aim("/000000000000/q")
    assert harness.serve(request).status == 200
    request = json_request("ReceiveMessage")
    request.aim("/000000000000/q")
    assert harness.serve(request).json()["Messages"][0]["Body"] == "a"


def test_url_over_tls_is_https(harness: Harness) -> None:
    request = json_request("CreateQueue", QueueName="q")
    request.secure = True
    assert harness.serve(request).json()["QueueUrl"] == "https://localhost:9324/000000000000/q"


UNKNOWN_URLS = [
    "http://localhost:9324/",
    "http://localhost:9324/000000000000/nope",
    "http://localhost:9324/000000000001/q",
    "http://sqs.eu-west-1.localhost:9324/000000000000/q",
    "http://localhost:9324/queue/eu-west-1/000000000000/q",
    "http://localhost:9324/000000000000/q?x=y",
    "ftp://x/000000000000/q",
    "http://h/1/2/3/4/5",
    "/",
    "a/b",
    "nope",
    "q" * 1_025,
]


@pytest.mark.parametrize("url", UNKNOWN_URLS)
def test_url_of_no_queue_is_a_queue_that_does_not_exist(harness: Harness, url: str) -> None:
    harness.create()
    json = harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    query = harness.query("SendMessage", {"QueueUrl": url, "MessageBody": "a"})
    code = "AWS.SimpleQueueService.NonExistentQueue"
    assert (json.status, json.code, query.status, query.code) == (400, code, 400, code)
    assert json.message == "The specified queue does not exist."
    assert query.message == "The specified queue does not exist for this wsdl version."


def test_every_operation_on_a_queue_answers_that_it_does_not_exist(sqs: Any) -> None:
    url = "http://localhost:9324/nope"
    for call, parameters in (
        (sqs.add_permission, {"Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}),
        (sqs.change_message_visibility, {"ReceiptHandle": "x", "VisibilityTimeout": 1}),
        (sqs.change_message_visibility_batch, {"Entries": [{"Id": "1", "ReceiptHandle": "x"}]}),
        (sqs.delete_message, {"ReceiptHandle": "x"}),
        (sqs.delete_message_batch, {"Entries": [{"Id": "1", "ReceiptHandle": "x"}]}),
        (sqs.delete_queue, {}),
        (sqs.get_queue_attributes, {"AttributeNames": ["All"]}),
        (sqs.list_dead_letter_source_queues, {}),
        (sqs.list_queue_tags, {}),
        (sqs.purge_queue, {}),
        (sqs.receive_message, {}),
        (sqs.remove_permission, {"Label": "l"}),
        (sqs.send_message, {"MessageBody": "a"}),
        (sqs.send_message_batch, {"Entries": [{"Id": "1", "MessageBody": "a"}]}),
        (sqs.set_queue_attributes, {"Attributes": {"DelaySeconds": "1"}}),
        (sqs.tag_queue, {"Tags": {"a": "b"}}),
        (sqs.untag_queue, {"TagKeys": ["a"]}),
    ):
        seen = refused(call, QueueUrl=url, **parameters)
        assert (seen.exception, seen.status) == ("QueueDoesNotExist", 400)


@pytest.mark.parametrize("url", ["q", "http://elsewhere.example/000000000000/q", "http://localhost/queue/q"])
def test_other_forms_of_url_are_understood(harness: Harness, url: str) -> None:
    harness.create()
    assert harness.json("SendMessage", QueueUrl=url, MessageBody="a").status == 200


@pytest.mark.parametrize("url", ["nope", "http://localhost/000000000000/nope", "http://localhost/000000000000/a%20b"])
def test_unknown_queue_does_not_exist(harness: Harness, url: str) -> None:
    answer = harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    assert answer.code == "AWS.SimpleQueueService.NonExistentQueue"
    assert answer.message == "The specified queue does not exist."


@pytest.mark.parametrize("members", [{}, {"QueueUrl": ""}, {"QueueUrl": None}])
def test_queue_url_is_required(harness: Harness, members: dict[str, Any]) -> None:
    answer = harness.json("DeleteQueue", **members)
    assert (answer.code, answer.message) == ("MissingParameter", "The request must contain the parameter QueueUrl.")
