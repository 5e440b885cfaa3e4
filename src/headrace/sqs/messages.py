"""A message on the wire: which characters and attributes it may have, its size, its MD5 digests.

Source: SQS, "Message metadata", SendMessage, "Calculating the MD5 message digest for message attributes".
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from headrace.queue.attributes import Attributes
from headrace.queue.limits import ATTRIBUTES_MAX, ID_CHARACTERS_MAX
from headrace.queue.model import ID
from headrace.sqs import limits
from headrace.sqs.errors import (
    CHARACTER_RULE,
    INVALID_MESSAGE_CONTENTS,
    INVALID_PARAMETER_VALUE,
    UNSUPPORTED_OPERATION,
    Fault,
    invalid,
    missing,
)
from headrace.sqs.shapes import AttributeValue

# Every byte that a message may contain; bytes that remain after these are deleted are forbidden. Surrogates are not valid
# UTF-8 and never arrive here; U+FFFE and U+FFFF are found by their bytes. This is one pass in C: a regular expression
# takes five times as long.
_ALLOWED: Final = bytes(byte for byte in range(256) if byte >= 0x20 or byte in b"\t\n\r")
_NO_CHARACTER: Final = (b"\xef\xbf\xbe", b"\xef\xbf\xbf")

_NOT_IN_NAME: Final = re.compile(r"[^\w.-]")  # letters and digits of any script: AWS accepts `attr.1øßä`
_RESERVED: Final = re.compile(r"(?:aws|amazon)\.", re.IGNORECASE)
_TYPE: Final = re.compile(r"(?:String|Number|Binary)(?:\.[^\x00-\x1f]+)?")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_length: Final = struct.Struct(">I").pack


def md5(data: bytes) -> str:
    """A digest that clients compare; it is not used for security."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def allowed(body: bytes) -> bool:
    """Whether UTF-8 `body` has only characters that SQS messages may have."""
    if body.translate(None, _ALLOWED):
        return False
    return body.isascii() or not (_NO_CHARACTER[0] in body or _NO_CHARACTER[1] in body)


def encode_body(text: str | None) -> bytes:
    """The bytes of a message body.

    Raises:
        Fault: MissingParameter without a body, InvalidMessageContents for a forbidden character.
    """
    if not text:
        raise missing("MessageBody")
    body = text.encode()
    if not allowed(body):
        raise Fault(INVALID_MESSAGE_CONTENTS, CHARACTER_RULE)
    return body


def sequence_number(seq: int) -> str:
    """The SequenceNumber of a FIFO message: 20 digits that rise with `seq`, so they sort as text too.

    A number with leading zeros contains twelve zeros in a row, which tools that mask account ids take for one.
    """
    return str(limits.SEQUENCE_NUMBER_BASE + seq)


def check_id(parameter: str, value: str | None) -> None:
    """Refuse a group, deduplication or attempt id that is not 1 to 128 alphanumerics and punctuation marks."""
    if value is not None and ID.fullmatch(value) is None:
        rule = (
            f"{parameter} can only include alphanumeric and punctuation characters. 1 to {ID_CHARACTERS_MAX} in length."
        )
        raise invalid(parameter, value, rule)


def read_attributes(given: Mapping[str, AttributeValue]) -> Attributes:
    """The message attributes of a request, checked.

    Raises:
        Fault: InvalidParameterValue, or UnsupportedOperation for a list value.
    """
    if len(given) > ATTRIBUTES_MAX:
        raise _refused(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].")
    read: Attributes = {}
    for name, value in given.items():
        _check_name(name)
        read[name] = _read_value(name, value, "message (user) attribute")
    return read


def read_trace(given: Mapping[str, AttributeValue]) -> str | None:
    """The AWSTraceHeader among the message system attributes of a request; no other may be sent."""
    for name, value in given.items():
        if name != "AWSTraceHeader":
            raise _refused(f"Message system attribute name '{name}' is invalid.")
        data_type, text = _read_value(name, value, "message system attribute")
        if data_type != "String" or not isinstance(text, str):
            raise _refused("The message system attribute 'AWSTraceHeader' must be of type 'String'.")
        return text
    return None


def _check_name(name: str) -> None:
    if not name:
        raise _refused("The request must contain non-empty message (user) attribute names.")
    if len(name) > limits.ATTRIBUTE_NAME_CHARACTERS_MAX:
        raise _refused(
            f"Message (user) attribute name must be shorter than {limits.ATTRIBUTE_NAME_CHARACTERS_MAX} bytes."
        )
    invalid_character = _NOT_IN_NAME.search(name)
    if invalid_character is not None:
        raise _refused(
            f"Invalid non-alphanumeric character '#x{ord(invalid_character[0]):X}' was found in the message attribute name. "
            "Can only include alphanumeric characters, hyphens, underscores, or dots."
        )
    if name[0] == ".":
        raise _refused("Message (user) attribute name must not begin with character '.'.")
    if name[-1] == ".":
        raise _refused("Message (user) attribute name must not end with character '.'.")
    if ".." in name:
        raise _refused("Message (user) attribute name must not have successive '.' characters.")
    if _RESERVED.match(name):
        raise _refused(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved for "
            "internal use."
        )


def _read_value(name: str, value: AttributeValue, noun: str) -> tuple[str, str | bytes]:
    """The type and value of an attribute, checked. `noun` names the kind of attribute in texts."""
    if value.string_list_values or value.binary_list_values:
        raise Fault(UNSUPPORTED_OPERATION, "Message attribute list values in SendMessage operation are not supported.")
    data_type, text, data = value.data_type, value.string_value, value.binary_value
    if data_type is None and text is None and data is None:
        raise _refused(f"The {noun} '{name}' must contain a non-empty message attribute value.")
    if not data_type:
        raise _refused(f"The {noun} '{name}' must contain a non-empty message attribute type.")
    if len(data_type) > limits.ATTRIBUTE_TYPE_CHARACTERS_MAX:
        raise _refused(
            f"Message (user) attribute type must be shorter than {limits.ATTRIBUTE_TYPE_CHARACTERS_MAX} bytes."
        )
    if _TYPE.fullmatch(data_type) is None:
        raise _refused(
            f"The type of {noun} '{name}' is invalid. You must use only the following supported type prefixes: "
            "Binary, Number, String."
        )
    if text and data:
        raise _refused(f"{noun.capitalize()} '{name}' must have a single value.")
    base = data_type[:6]
    content, other = (data, text) if base == "Binary" else (text, data)
    if not content and other:
        using = "Binary" if base == "Binary" else "String"
        raise _refused(f"{noun.capitalize()} '{name}' with type '{base}' must use field '{using}'.")
    if not content:
        raise _refused(f"{noun.capitalize()} '{name}' must contain a non-empty value of type '{base}'.")
    if isinstance(content, str):
        if not allowed(content.encode()):  # AWS answers InvalidMessageContents for the body only
            raise _refused(CHARACTER_RULE)
        if base == "Number" and not _is_number(content):
            raise _refused(f"Can't cast the value of {noun} '{name}' to a number.")
    return data_type, content


def _is_number(text: str) -> bool:
    """Whether it is a number of at most 38 digits between 10^-128 and 10^126, or zero."""
    if len(text) > limits.NUMBER_CHARACTERS_MAX or _NUMBER.fullmatch(text) is None:
        return False
    number = Decimal(text)
    if not number:
        return True
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    in_range = limits.NUMBER_EXPONENT_MIN <= number.adjusted() <= limits.NUMBER_EXPONENT_MAX
    return in_range and len(digits) <= limits.NUMBER_DIGITS_MAX


def attributes_size(attributes: Attributes) -> int:
    """The bytes that attributes count in a message's size: names, types and values."""
    return sum(
        len(name.encode()) + len(data_type.encode()) + len(value.encode() if isinstance(value, str) else value)
        for name, (data_type, value) in attributes.items()
    )


def attributes_md5(attributes: Iterable[tuple[str, tuple[str, str | bytes]]]) -> str:
    """The digest of message attributes, given as (name, (type, value)) in the order of their names."""
    parts: list[bytes] = []
    for name, (data_type, value) in attributes:
        _add(parts, name.encode())
        _add(parts, data_type.encode())
        if isinstance(value, str):
            parts.append(b"\x01")
            _add(parts, value.encode())
        else:
            parts.append(b"\x02")
            _add(parts, value)
    return md5(b"".join(parts))


def _add(parts: list[bytes], text: bytes) -> None:
    parts.append(_length(len(text)))
    parts.append(text)


def _refused(text: str) -> Fault:
    return Fault(INVALID_PARAMETER_VALUE, text)
