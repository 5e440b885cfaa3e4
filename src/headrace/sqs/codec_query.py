"""The Query protocol of older SDKs: parameters in a form or in the query string, answers in XML.

Lists and maps are flattened and counted from 1: `Attribute.1.Name=…&Attribute.1.Value=…`. A plan for each request
shape, made once from its fields, says which parameter becomes which member; the values are then converted and checked
by the same types as JSON's. Source: AWS Query protocol; botocore's service model of SQS before its move to JSON.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import a2b_qp
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar, get_args
from urllib.parse import unquote_to_bytes

import msgspec

from headrace.sqs import limits
from headrace.sqs.codec import Headers
from headrace.sqs.errors import NO_OPERATION, QUEUE_DOES_NOT_EXIST, SERIALIZATION, Fault
from headrace.sqs.messages import allowed
from headrace.sqs.shapes import Shape

NAMESPACE: Final = "http://queue.amazonaws.com/doc/2012-11-05/"

T = TypeVar("T", bound=Shape)
Tree = dict[str, Any]

_LISTS: Final = {
    "AWSAccountIds": "AWSAccountId",
    "Actions": "ActionName",
    "AttributeNames": "AttributeName",
    "BinaryListValues": "BinaryListValue",
    "MessageAttributeNames": "MessageAttributeName",
    "MessageSystemAttributeNames": "MessageSystemAttributeName",
    "Messages": "Message",
    "QueueUrls": "QueueUrl",
    "Results": "ListMessageMoveTasksResultEntry",
    "StringListValues": "StringListValue",
    "TagKeys": "TagKey",
    "queueUrls": "QueueUrl",
    "Failed": "BatchResultErrorEntry",
}
"""Member → its element's or parameter's name."""

MAPS: Final = {
    "Attributes": ("Attribute", "Name", "Value"),
    "MessageAttributes": ("MessageAttribute", "Name", "Value"),
    "MessageSystemAttributes": ("MessageSystemAttribute", "Name", "Value"),
    "Tags": ("Tag", "Key", "Value"),
    "tags": ("Tag", "Key", "Value"),
}
"""Member → names of its entry, of the key, of the value."""

_INDEX: Final = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


def parse(form: bytes) -> list[tuple[str, str]]:
    """Names and values of a form or query string, in its order; a name without `=` has an empty value.

    Raises:
        Fault: MalformedInput: not UTF-8, or too many parameters.
    """
    if form.count(b"&") >= limits.QUERY_PARAMETERS_MAX:
        raise Fault(SERIALIZATION, f"The request has more than {limits.QUERY_PARAMETERS_MAX} parameters.")
    try:
        return [
            (_unquote(name), _unquote(value))
            for name, _, value in (p.partition(b"=") for p in form.split(b"&"))
            if name
        ]
    except UnicodeDecodeError:
        raise Fault(SERIALIZATION, "The request's parameters are not URL-encoded UTF-8.") from None


def _unquote(text: bytes) -> str:
    """What URL-encoded `text` says, as `urllib.parse.unquote_plus`.

    That function makes an object of every escape: a message of a mebibyte would delay all clients for half a second.
    Escapes are those of quoted-printable with another sign, and its decoder is written in C. Where it and URLs differ,
    in line ends and in signs that begin no escape, the length tells, or they are seen beforehand.
    """
    text = text.replace(b"+", b" ")
    escapes = text.count(b"%")
    if not escapes:
        return text.decode()
    if b"\n" not in text and b"\r" not in text:
        decoded = a2b_qp(text.replace(b"=", b"=3D").replace(b"%", b"="))
        if len(decoded) == len(text) - 2 * escapes:
            return decoded.decode()
    return unquote_to_bytes(text).decode()


def decode(operation: str, shape: type[T], parameters: list[tuple[str, str]]) -> T:
    """The request that `parameters` make; those that it does not have are ignored, as AWS does.

    Raises:
        Fault: MalformedInput: conflicting names, an invalid number or invalid base64.
    """
    values = _assemble(_plan(operation, shape), _tree(parameters))
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        raise Fault(SERIALIZATION, f"The request has a parameter of the wrong type: {error}.") from None


def _tree(parameters: list[tuple[str, str]]) -> Tree:
    """`A.1.B=x` as `{"A": {"1": {"B": "x"}}}`."""
    root: Tree = {}
    for name, value in parameters:
        *path, last = name.split(".", limits.QUERY_DEPTH_MAX)
        node = root
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise _conflict(name)
        if isinstance(node.get(last), dict):
            raise _conflict(name)
        node[last] = value
    return root


def _conflict(name: str) -> Fault:
    return Fault(SERIALIZATION, f"The parameter {name[:128]} conflicts with another one.")


# ------------------------------------------------------------------------------------------------- plans for requests


@dataclass(frozen=True, slots=True)
class _Member:
    """How a member is found: `kind` is value, list or map; `names` are those of its parameters."""

    name: str
    kind: str
    names: tuple[str, ...]
    shape: type[Shape] | None


@cache
def _plan(operation: str, shape: type[Shape]) -> tuple[_Member, ...]:
    return tuple(_member(operation, field) for field in msgspec.structs.fields(shape))


def _member(operation: str, field: msgspec.structs.FieldInfo) -> _Member:
    name, inner = field.encode_name, _inner_shape(field.type)
    if name == "Entries":
        return _Member(name, "list", (f"{operation}RequestEntry",), inner)
    if name in MAPS:
        return _Member(name, "map", MAPS[name], inner)
    if name in _LISTS:
        return _Member(name, "list", (_LISTS[name],), inner)
    return _Member(name, "value", (name,), None)


def _inner_shape(annotation: Any) -> type[Shape] | None:
    """The shape within `list[X] | None` or `dict[str, X] | None`, if X is one."""
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner_shape(part)) is not None), None)


def _assemble(plan: tuple[_Member, ...], tree: Tree) -> Tree:
    """The members of a shape, as JSON would have them."""
    members: Tree = {}
    for member in plan:
        found = tree.get(member.names[0])
        if found is None:
            if member.name == "Entries":
                members[member.name] = []  # the protocol cannot tell an empty batch from a missing one
            continue
        if member.kind == "value":
            members[member.name] = found
        elif member.kind == "list":
            members[member.name] = [_item(member, item) for item in _numbered(member.names[0], found)]
        else:
            members[member.name] = _map(member, _numbered(member.names[0], found))
    return members


def _numbered(name: str, found: Any) -> list[Any]:
    """The items of a list in the order of their numbers; gaps do not matter."""
    if not isinstance(found, dict):
        raise Fault(SERIALIZATION, f"The parameter {name} needs numbers: {name}.1, {name}.2, and so on.")
    for index in found:
        if _INDEX.fullmatch(index) is None:
            raise Fault(SERIALIZATION, f"The parameter {name}.{index[:32]} is not numbered from 1.")
    return [found[index] for index in sorted(found, key=int)]


def _item(member: _Member, item: Any) -> Any:
    if member.shape is None:
        return item
    if not isinstance(item, dict):
        raise Fault(SERIALIZATION, f"The parameter {member.names[0]} has parts.")
    return _assemble(_plan("", member.shape), item)


def _map(member: _Member, entries: list[Any]) -> Tree:
    entry_name, key_name, value_name = member.names
    result: Tree = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get(key_name), str):
            raise Fault(SERIALIZATION, f"Each {entry_name} needs a {key_name}.")
        value = entry.get(value_name, "" if member.shape is None else {})
        result[entry[key_name]] = _item(member, value)
    return result


# ----------------------------------------------------------------------------------------------------- answers in XML


class QueryCodec:
    content_type = b"text/xml"

    def answer(self, operation: str, result: Shape | None, request_id: str) -> bytes:
        content = "" if result is None else _result(f"{operation}Result", _members(operation, result))
        metadata = f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        return (
            f'<?xml version="1.0"?><{operation}Response xmlns="{NAMESPACE}">{content}{metadata}</{operation}Response>'
        ).encode()

    def fault(self, fault: Fault, request_id: str) -> tuple[bytes, Headers]:
        kind = fault.kind
        if kind is NO_OPERATION:
            return b"<UnknownOperationException/>", ()
        error = (
            f"<Error><Type>{'Sender' if kind.sender else 'Receiver'}</Type><Code>{kind.code}</Code>"
            f"<Message>{_escape(query_message(fault))}</Message><Detail/></Error>"
        )
        body = f'<?xml version="1.0"?><ErrorResponse xmlns="{NAMESPACE}">{error}<RequestId>{request_id}</RequestId></ErrorResponse>'
        return body.encode(), ()


def _result(name: str, content: str) -> str:
    return _element(name, content) if content else f"<{name}/>"  # as AWS writes it; programs compare the text


def query_message(fault: Fault) -> str:
    """The text of an error in this protocol. AWS words the one for a missing queue differently than in JSON."""
    if fault.kind is QUEUE_DOES_NOT_EXIST:
        return fault.message.removesuffix(".") + " for this wsdl version."
    return fault.message


def _members(operation: str, shape: Shape) -> str:
    parts = []
    for field in msgspec.structs.fields(type(shape)):
        value = getattr(shape, field.name)
        if value is not None:
            parts.append(_value(operation, field.encode_name, value))
    return "".join(parts)


def _value(operation: str, name: str, value: Any) -> str:
    if isinstance(value, list):
        item_name = f"{operation}ResultEntry" if name == "Successful" else _LISTS[name]
        return "".join(_element(item_name, _content(operation, item)) for item in value)
    if isinstance(value, dict):
        entry, key_name, value_name = MAPS[name]
        return "".join(
            _element(entry, _element(key_name, _escape(key)) + _element(value_name, _content(operation, item)))
            for key, item in value.items()
        )
    return _element(name, _content(operation, value))


def _content(operation: str, value: Any) -> str:
    if isinstance(value, Shape):
        return _members(operation, value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return _escape(str(value))


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


# A carriage return that stands in XML as it is reads as a line feed. Plain replacing is ten times as fast as translating.
_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("\r", "&#xD;"))
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _escape(text: str) -> str:
    """`text` for XML. What XML cannot hold (only an echoed name or handle has it; bodies are checked) is replaced."""
    if not allowed(text.encode(errors="replace")):
        text = _NOT_XML.sub("\ufffd", text)
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


QUERY: Final = QueryCodec()
