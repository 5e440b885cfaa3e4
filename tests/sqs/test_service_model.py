"""AWS's own service model, as botocore ships it, holds the API's tables to account."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.sqs import attribute_names, errors, shapes
from headrace.sqs.api import ACTIONS, TARGETS
from headrace.sqs.codec_query import _LISTS, MAPS
from tests.sqs.query_model import ERRORS, LIST_ELEMENTS, MAP_NAMES, MEMBER_NAMES, current_model

MODEL = current_model()
OPERATIONS: dict[str, Any] = MODEL["operations"]
SHAPES: dict[str, Any] = MODEL["shapes"]

RESULTS: dict[str, type[shapes.Shape]] = {
    "CancelMessageMoveTask": shapes.CancelMoveResult,
    "ChangeMessageVisibilityBatch": shapes.BatchResult,
    "CreateQueue": shapes.QueueUrlResult,
    "DeleteMessageBatch": shapes.BatchResult,
    "GetQueueAttributes": shapes.AttributesResult,
    "GetQueueUrl": shapes.QueueUrlResult,
    "ListDeadLetterSourceQueues": shapes.SourceQueueUrlsResult,
    "ListMessageMoveTasks": shapes.MoveTasksResult,
    "ListQueueTags": shapes.TagsResult,
    "ListQueues": shapes.QueueUrlsResult,
    "ReceiveMessage": shapes.ReceiveMessageResult,
    "SendMessage": shapes.SendMessageResult,
    "SendMessageBatch": shapes.BatchResult,
    "StartMessageMoveTask": shapes.StartMoveResult,
}
ENTRIES: dict[str, type[shapes.Shape]] = {
    "BatchResultErrorEntry": shapes.BatchResultErrorEntry,
    "ChangeMessageVisibilityBatchRequestEntry": shapes.ChangeMessageVisibilityEntry,
    "ChangeMessageVisibilityBatchResultEntry": shapes.BatchResultEntry,
    "DeleteMessageBatchRequestEntry": shapes.DeleteMessageEntry,
    "DeleteMessageBatchResultEntry": shapes.BatchResultEntry,
    "ListMessageMoveTasksResultEntry": shapes.MoveTaskEntry,
    "Message": shapes.ReceivedMessage,
    "MessageAttributeValue": shapes.AttributeValue,
    "MessageSystemAttributeValue": shapes.AttributeValue,
    "SendMessageBatchRequestEntry": shapes.SendMessageEntry,
    "SendMessageBatchResultEntry": shapes.SendMessageBatchResultEntry,
}
PYTHON_TYPES = {"string": "str", "integer": "int", "long": "int", "boolean": "bool", "blob": "bytes"}


def members(shape: type[shapes.Shape]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(shape)}


def test_every_operation_is_served_in_both_protocols() -> None:
    assert ACTIONS.keys() == OPERATIONS.keys()
    assert {target.decode() for target in TARGETS} == {f"AmazonSQS.{name}" for name in OPERATIONS}


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_have_the_members_of_the_model(name: str) -> None:
    modelled = SHAPES[OPERATIONS[name]["input"]["shape"]]["members"]
    ours = members(ACTIONS[name].shape)
    assert ours.keys() == modelled.keys()
    for member, target in modelled.items():
        kind = SHAPES[target["shape"]]["type"]
        expected = {"list": "list[", "map": "dict[str, "}.get(kind) or PYTHON_TYPES[kind]
        assert str(ours[member]).startswith(expected), (name, member)


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_have_the_members_of_the_model(name: str) -> None:
    output = OPERATIONS[name].get("output")
    assert (output is None) == (name not in RESULTS)
    if output is not None:
        assert members(RESULTS[name]).keys() == SHAPES[output["shape"]]["members"].keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_structures_have_the_members_of_the_model(name: str) -> None:
    assert members(ENTRIES[name]).keys() == SHAPES[name]["members"].keys()


def test_every_structure_of_the_model_has_been_compared() -> None:
    roots = {
        operation[side]["shape"]
        for operation in OPERATIONS.values()
        for side in ("input", "output")
        if side in operation
    }
    structures = {name for name, shape in SHAPES.items() if shape["type"] == "structure" and not shape.get("exception")}
    assert structures == roots | ENTRIES.keys()


def test_every_declared_error_has_its_shape_code_and_status() -> None:
    declared = {name for name, shape in SHAPES.items() if shape.get("exception")}
    assert errors.DECLARED.keys() == declared
    assert {
        error["shape"] for operation in OPERATIONS.values() for error in operation["errors"]
    } <= errors.DECLARED.keys()
    for shape, (code, status) in ERRORS.items():
        assert (errors.DECLARED[shape].code, errors.DECLARED[shape].status) == (code, status)
    for shape in declared - ERRORS.keys():
        kind = errors.DECLARED[shape]
        assert kind.code == shape or (shape.startswith("Kms") and kind.code.startswith("KMS."))
    assert all(kind.namespace == "com.amazonaws.sqs" for kind in errors.DECLARED.values())


def test_every_attribute_name_is_known() -> None:
    assert set(SHAPES["QueueAttributeName"]["enum"]) == attribute_names.KNOWN
    assert set(SHAPES["MessageSystemAttributeName"]["enum"]) == attribute_names.SYSTEM | {attribute_names.ALL}
    assert SHAPES["MessageSystemAttributeNameForSends"]["enum"] == ["AWSTraceHeader"]


def test_names_of_the_query_protocol() -> None:
    """Our names against those that botocore is given, member by member."""
    for structure in (shape for shape in SHAPES.values() if shape["type"] == "structure"):
        for member, target in structure.get("members", {}).items():
            shape = SHAPES[target["shape"]]
            if shape["type"] == "list" and member not in ("Entries", "Successful"):
                assert _LISTS[member] == LIST_ELEMENTS[target["shape"]]
            if shape["type"] == "map":
                assert MAPS[member] == (MEMBER_NAMES[member], *MAP_NAMES[target["shape"]])
    for name in ("ChangeMessageVisibilityBatch", "DeleteMessageBatch", "SendMessageBatch"):
        assert LIST_ELEMENTS[f"{name}RequestEntryList"] == f"{name}RequestEntry"
        assert LIST_ELEMENTS[f"{name}ResultEntryList"] == f"{name}ResultEntry"
