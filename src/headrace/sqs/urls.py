"""Queue URLs: reading every form in use, and writing the form that the broker is configured for.

| form | example | also known from |
|---|---|---|
| short-default | `http://host:9324/000000000000/name`, in other regions than us-east-1 as `path` | ElasticMQ, goaws, Moto |
| standard | `http://sqs.eu-west-1.host:9324/000000000000/name` | AWS, LocalStack |
| domain | `http://eu-west-1.queue.host:9324/000000000000/name`, `http://queue.host:9324/…` for us-east-1 | old AWS |
| path | `http://host:9324/queue/eu-west-1/000000000000/name` | LocalStack |

In each form queues of the same name in two regions have two URLs. `http://host/queue/name` (old ElasticMQ) and the bare
name are read, too. The host of a URL is not compared with ours: the request has reached this broker. Java SDKs connect
to the host of a queue's URL, so answers carry the host of the request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from headrace.queue.limits import REGION_DEFAULT
from headrace.sqs import limits

UrlForm: TypeAlias = Literal["standard", "domain", "path", "short-default"]

_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+){1,3}-[0-9]{1,2}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}(?:\.fifo)?", re.ASCII)
_ARN: Final = re.compile(r"arn:aws(?:-[a-z-]+)?:sqs:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_-]{1,80}(?:\.fifo)?", re.ASCII)
_IP_ADDRESS: Final = re.compile(r"\[.*|[0-9.]+(?::[0-9]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """The queue that a host and a path name; region and account are None where they name none."""

    region: str | None
    account: str | None
    name: str


@dataclass(frozen=True, slots=True)
class UrlStyle:
    """How to write queue URLs in the answer to a request.

    Attributes:
        scheme: http or https.
        base: the host with its port, without the labels of a service's name (`sqs.eu-west-1.`).
        form: one of the four forms.
        region: the region that the request's host or path names, or None.
    """

    scheme: str
    base: str
    form: UrlForm
    region: str | None

    def url(self, arn: str) -> str:
        """The URL of the queue `arn`."""
        _, _, _, region, account, name = arn.split(":", 5)
        if self.form == "standard":
            return f"{self.scheme}://sqs.{region}.{self.base}/{account}/{name}"
        if self.form == "domain":
            prefix = "" if region == REGION_DEFAULT else f"{region}."
            return f"{self.scheme}://{prefix}queue.{self.base}/{account}/{name}"
        if self.form == "short-default" and region == REGION_DEFAULT:
            return f"{self.scheme}://{self.base}/{account}/{name}"
        return f"{self.scheme}://{self.base}/queue/{region}/{account}/{name}"


@lru_cache(maxsize=limits.HOSTS_MAX)
def url_style(host: str, path_region: str | None, *, secure: bool, form: UrlForm) -> UrlStyle:
    """The style of the URLs in an answer.

    A host or a path that names a region keeps its form, since the client can reach that one. An IP address cannot have
    names below it, so it gets the `path` form instead of `standard` and `domain`.

    Args:
        host: of the request, with port.
        path_region: the region that the request's path names, if any.
        secure: whether the client speaks TLS.
        form: the configured form.
    """
    scheme = "https" if secure else "http"
    if path_region is not None:
        return UrlStyle(scheme, host, "path", path_region)
    named = _service_name(host)
    if named is not None:
        named_form, region, base = named
        return UrlStyle(scheme, base, named_form, region)
    if form in ("standard", "domain") and _IP_ADDRESS.fullmatch(host) is not None:
        form = "path"
    return UrlStyle(scheme, host, form, None)


def _service_name(host: str) -> tuple[UrlForm, str, str] | None:
    """The form, region and base of a host by which AWS SDKs address a queue service; None for any other host."""
    first, _, rest = host.partition(".")
    second, _, domain = rest.partition(".")
    if first == "sqs" and domain and _REGION.fullmatch(second):
        return "standard", second, domain
    if second == "queue" and domain and _REGION.fullmatch(first):
        return "domain", first, domain
    if first == "queue" and rest:
        return "domain", REGION_DEFAULT, rest
    return None


def parse_path(path: str) -> QueueAddress | None:
    """The queue that a URL's path names; None for any other path."""
    parts = path.strip("/").split("/")
    if len(parts) == 4 and parts[0] == "queue" and _REGION.fullmatch(parts[1]) and _ACCOUNT.fullmatch(parts[2]):
        return _address(parts[1], parts[2], parts[3])
    if len(parts) == 2 and _ACCOUNT.fullmatch(parts[0]):
        return _address(None, parts[0], parts[1])
    if len(parts) == 2 and parts[0] == "queue":
        return _address(None, None, parts[1])
    return None


def parse_url(url: str) -> QueueAddress | None:
    """The queue that a QueueUrl names; None if it has no form of a queue URL."""
    if "/" not in url:
        return QueueAddress(None, None, url)  # a bare name; AWS accepts it too
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        return None
    host, _, path = rest.partition("/")
    address = parse_path(path)
    if address is None or address.region is not None:
        return address
    named = _service_name(host)
    return QueueAddress(named[1] if named is not None else None, address.account, address.name)


def valid_name(name: str) -> bool:
    """Whether a queue may have that name. The queue's own rule refuses names of more than 80 characters."""
    return _NAME.fullmatch(name) is not None


def valid_arn(arn: str) -> bool:
    return _ARN.fullmatch(arn) is not None


def valid_account(account: str) -> bool:
    return _ACCOUNT.fullmatch(account) is not None


def valid_region(region: str) -> bool:
    return _REGION.fullmatch(region) is not None


def _address(region: str | None, account: str | None, name: str) -> QueueAddress | None:
    return QueueAddress(region, account, name) if name else None
