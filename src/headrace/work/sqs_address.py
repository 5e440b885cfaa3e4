"""How an SQS endpoint is named as a broker. Loads nothing: every app asks."""

from __future__ import annotations

import re
from typing import Final

from headrace.errors import InvalidParameter

_AWS: Final = re.compile(r"https://sqs[.-]([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?(?:/.*)?")
_PLAIN: Final = re.compile(r"sqs://([a-z0-9-]+)/?")
_OTHER: Final = re.compile(r"sqs\+(https?://[^/]+)/?")


def is_sqs(target: str) -> bool:
    """Whether a broker's address names an SQS endpoint."""
    return any(form.fullmatch(target) for form in (_AWS, _PLAIN, _OTHER))


def parse(target: str) -> tuple[str | None, str | None]:
    """(region, endpoint); None: as boto3 finds it. Raises InvalidParameter."""
    found = _AWS.fullmatch(target) or _PLAIN.fullmatch(target)
    if found is not None:
        return found[1], None
    other = _OTHER.fullmatch(target)
    if other is not None:
        return None, other[1]
    raise InvalidParameter(
        "broker", target, "write sqs://REGION, https://sqs.REGION.amazonaws.com or sqs+http://HOST:PORT"
    )
