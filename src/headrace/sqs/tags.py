"""The rules of queue tags. Source: SQS, TagQueue; "Amazon SQS cost allocation tags"."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.sqs import limits
from headrace.sqs.errors import INVALID_PARAMETER_VALUE, Fault, invalid


def check_tags(queue_name: str, tags: Mapping[str, str], *, present: int = 0) -> None:
    """Refuse tags that break a rule, or that make too many with the `present` ones."""
    if present + len(tags) > limits.TAGS_MAX:
        raise Fault(INVALID_PARAMETER_VALUE, f"Too many tags added for queue {queue_name}.")
    for key, value in tags.items():
        check_tag_key(key)
        if key.lower().startswith("aws:"):
            raise invalid("TagKey", key, "The prefix aws: is reserved for AWS use.")
        if len(value) > limits.TAG_VALUE_CHARACTERS_MAX:
            rule = f"Tag values must be between 0 and {limits.TAG_VALUE_CHARACTERS_MAX} characters in length."
            raise Fault(INVALID_PARAMETER_VALUE, rule)


def check_tag_key(key: str) -> None:
    if not 1 <= len(key) <= limits.TAG_KEY_CHARACTERS_MAX:
        rule = f"Tag keys must be between 1 and {limits.TAG_KEY_CHARACTERS_MAX} characters in length."
        raise Fault(INVALID_PARAMETER_VALUE, rule)
