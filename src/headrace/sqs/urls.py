"""Queue URLs: reading every form that is in use, and answering in the form of the request.

| form | example | where it comes from |
|---|---|---|
| path | `http://host:9324/000000000000/name` | ElasticMQ, goaws, moto; ours |
| region host | `http://sqs.eu-west-1.host/000000000000/name` | AWS, LocalStack |
| legacy host | `http://eu-west-1.queue.host/000000000000/name`, `http://queue.host/…` for us-east-1 | old AWS |
| region path | `http://host/queue/eu-west-1/000000000000/name` | LocalStack |

Besides, `http://host/queue/name` (old ElasticMQ) and the bare name are read. The host that a URL names is not compared
with ours: whoever got the request through has found us. Java SDKs connect to the host of the URL, so answers carry the
host that the request came to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from headrace.queue.limits import REGION_DEFAULT
from headrace.sqs import limits

_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+){1,3}-[0-9]{1,2}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}(?:\.fifo)?", re.ASCII)
_ARN: Final = re.compile(r"arn:aws(?:-[a-z-]+)?:sqs:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_-]{1,80}(?:\.fifo)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """What a host and a path say about where a queue is; None where they say nothing."""

    region: str | None
    account: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Form:
    """How to write queue URLs for a client: by the host and the path by which it came.

    Attributes:
        scheme: http or https.
        base: the host with its port; for the two host forms, without what stands before the domain.
        kind: path, region_host, legacy_host or region_path.
        region: the region that the host or path names, or None.
    """

    scheme: str
    base: str
    kind: str
    region: str | None

    def url(self, arn: str) -> str:
        """The URL of the queue `arn`."""
        _, _, _, region, account, name = arn.split(":", 5)
        if self.kind == "region_host":
            return f"{self.scheme}://sqs.{region}.{self.base}/{account}/{name}"
        if self.kind == "legacy_host":
            prefix = "" if region == REGION_DEFAULT else f"{region}."
            return f"{self.scheme}://{prefix}queue.{self.base}/{account}/{name}"
        if self.kind == "region_path":
            return f"{self.scheme}://{self.base}/queue/{region}/{account}/{name}"
        return f"{self.scheme}://{self.base}/{account}/{name}"


@lru_cache(maxsize=limits.HOSTS_MAX)
def form_of(host: str, path_region: str | None, *, secure: bool) -> Form:
    """The form in which to answer a request to `host` (with port) whose path named `path_region`, if any."""
    scheme = "https" if secure else "http"
    if path_region is not None:
        return Form(scheme, host, "region_path", path_region)
    first, _, rest = host.partition(".")
    second, _, domain = rest.partition(".")
    if first == "sqs" and domain and _REGION.fullmatch(second):
        return Form(scheme, domain, "region_host", second)
    if second == "queue" and domain and _REGION.fullmatch(first):
        return Form(scheme, domain, "legacy_host", first)
    if first == "queue" and rest:
        return Form(scheme, rest, "legacy_host", REGION_DEFAULT)
    return Form(scheme, host, "path", None)


def place_of_path(path: str) -> Place | None:
    """The queue that a URL's path names, or None: `/`, or no queue's path."""
    parts = path.strip("/").split("/")
    if len(parts) == 4 and parts[0] == "queue" and _REGION.fullmatch(parts[1]) and _ACCOUNT.fullmatch(parts[2]):
        return _place(parts[1], parts[2], parts[3])
    if len(parts) == 2 and _ACCOUNT.fullmatch(parts[0]):
        return _place(None, parts[0], parts[1])
    if len(parts) == 2 and parts[0] == "queue":
        return _place(None, None, parts[1])
    return None


def place_of_url(url: str) -> Place | None:
    """The queue that a QueueUrl names, or None if it is no form of queue URL."""
    if "/" not in url:
        return Place(None, None, url)  # a bare name; AWS takes it too
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        return None
    host, _, path = rest.partition("/")
    place = place_of_path(path)
    if place is None or place.region is not None:
        return place
    return Place(form_of(host, None, secure=False).region, place.account, place.name)


def valid_name(name: str) -> bool:
    """Whether a queue could have that name. What is longer than 80 characters is left to the queue's own rule."""
    return _NAME.fullmatch(name) is not None


def valid_arn(arn: str) -> bool:
    return _ARN.fullmatch(arn) is not None


def valid_account(account: str) -> bool:
    return _ACCOUNT.fullmatch(account) is not None


def valid_region(region: str) -> bool:
    return _REGION.fullmatch(region) is not None


def _place(region: str | None, account: str | None, name: str) -> Place | None:
    return Place(region, account, name) if name else None
