"""AWS Signature Version 4: who sent this request, and did nobody change it on the way?

A client hashes what it sends into a *canonical request*, and signs its hash, the time and a *scope* (day, region,
service) with a key that it derives from its secret for that scope. We do the same and compare. The signature comes in
the Authorization header, or, presigned, in the query string.

What must hold, beyond an equal signature:

- `host`, the date and every header that steers the request are among the signed ones;
- the body's hash is part of it, so a body cannot be exchanged;
- the date is within five minutes of ours (presigned: not yet expired), on the wall clock, since clients sign with theirs;
- comparing takes constant time, and an unknown key id costs what a wrong signature costs.

Replaying a request within these five minutes works, as on AWS; TLS is what prevents it.

Source: AWS General Reference, "Create a signed AWS API request"; texts as AWS answers them.
"""

from __future__ import annotations

import email.utils
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from headrace.errors import CallerError
from headrace.http.messages import Request
from headrace.sqs.keys import ANONYMOUS, Key, KeyRing, Principal

__all__ = ["ANONYMOUS", "Principal", "SignatureFault", "Verifier", "credential_scope"]

ALGORITHM: Final = b"AWS4-HMAC-SHA256"
SERVICE: Final = "sqs"
SKEW_MAX_S: Final = 300  # AWS: five minutes either way
EXPIRES_MAX_S: Final = 604_800  # AWS: a presigned URL lives at most seven days
DAY_KEYS_MAX: Final = 4_096  # derived keys kept; one a principal, region and day in use

_STEERING: Final = (b"x-amz-target", b"x-amz-content-sha256", b"x-amz-security-token")
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")
_SHAPES: Final = {
    "IncompleteSignature": "IncompleteSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "RequestExpired": "RequestExpired",
}

_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


@dataclass(eq=False)
class SignatureFault(CallerError):
    """The request is not signed as it must be.

    Attributes:
        code: AWS's code, as the Query protocol and `x-amzn-query-error` carry it.
        message: AWS's text.
        status: the HTTP status of the answer.
    """

    code: str
    message: str
    status: int = 403

    @property
    def shape(self) -> str:
        """The error's name in the JSON protocol (namespace `com.amazon.coral.service`)."""
        return _SHAPES[self.code]

    def __str__(self) -> str:
        return self.message


class _Claim(NamedTuple):
    """What a request says about its signature. All of it is the client's word until verified."""

    access_key: str
    day: str
    region: str
    signed_headers: bytes
    signature: bytes
    timestamp: str
    expires_s: int | None
    """Seconds that a presigned URL lives; None in the header form."""


class Verifier:
    """Tells who signed a request. Holds the keys and the derived day keys; knows nothing of what is allowed."""

    def __init__(self, keys: KeyRing, wall_clock: Callable[[], float]) -> None:
        """Verify by `keys`; `wall_clock` gives seconds since 1970, like `time.time`."""
        self._wall_clock = wall_clock
        self.replace(keys)

    def replace(self, keys: KeyRing) -> None:
        """Use `keys` from now on, and forget what was derived from the old ones."""
        self._keys = keys
        # Stands in for the secret of an unknown key id, so that the same work is done for it.
        self._nobody = Key(ANONYMOUS, os.urandom(32).hex())
        self._day_keys: dict[tuple[str, str, str], bytes] = {}

    def verify(self, request: Request) -> Principal:
        """The principal that signed `request`.

        Raises:
            SignatureFault: it is unsigned, signed by nobody we know, too old, or not what was signed.
        """
        claim = _claim_of(request)
        self._check_time(claim)
        known = self._keys.find(claim.access_key)
        day_key = self._day_key(known or self._nobody, claim)
        genuine = _matches(request, claim, day_key)
        if known is None:
            raise SignatureFault("InvalidClientTokenId", "The security token included in the request is invalid.")
        if not genuine:
            raise SignatureFault("SignatureDoesNotMatch", _MISMATCH)
        return known.principal

    def _check_time(self, claim: _Claim) -> None:
        signed_s, now_s = _seconds(claim.timestamp), self._wall_clock()
        if signed_s > now_s + SKEW_MAX_S:
            limit = f"{_iso(now_s + SKEW_MAX_S)} ({_iso(now_s)} + 5 min.)"
            text = f"Signature not yet current: {claim.timestamp} is still later than {limit}"
            raise SignatureFault("SignatureDoesNotMatch", text)
        if claim.expires_s is None and signed_s < now_s - SKEW_MAX_S:
            limit = f"{_iso(now_s - SKEW_MAX_S)} ({_iso(now_s)} - 5 min.)"
            text = f"Signature expired: {claim.timestamp} is now earlier than {limit}"
            raise SignatureFault("SignatureDoesNotMatch", text)
        if claim.expires_s is not None and now_s > signed_s + claim.expires_s:
            raise SignatureFault("RequestExpired", "Request has expired.")

    def _day_key(self, key: Key, claim: _Claim) -> bytes:
        """The signing key of a secret for a day and a region: four HMACs, so kept."""
        known_as = (key.secret, claim.day, claim.region)
        found = self._day_keys.get(known_as)
        if found is None:
            if len(self._day_keys) >= DAY_KEYS_MAX:
                self._day_keys.clear()  # regions are the client's word: made-up ones must not fill the memory
            found = self._day_keys[known_as] = derive_key(key.secret, claim.day, claim.region)
        return found


def derive_key(secret: str, day: str, region: str) -> bytes:
    """The signing key of `secret` for `day` (YYYYMMDD), `region` and this service."""
    key = b"AWS4" + secret.encode()
    for part in (day, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def credential_scope(request: Request) -> tuple[str, str] | None:
    """The access key id and the region that a request names, unverified; None if it names none.

    Unsigned requests are served when no keys are configured, and then the region still comes from here.
    """
    header = request.headers.get(b"authorization")
    if header is not None:
        start = header.find(b"Credential=")
        end = header.find(b",", start)
        return _scope(header[start + 11 : end if end > 0 else None]) if start >= 0 else None
    if "X-Amz-Credential=" in request.query:
        for name, value in _pairs(request.query):
            if name == b"X-Amz-Credential":
                return _scope(value)
    return None


@lru_cache(maxsize=512)
def _scope(credential: bytes) -> tuple[str, str] | None:
    """Access key id and region of `KEY/20261124/eu-west-1/sqs/aws4_request`; the id may hold slashes."""
    parts = credential.decode("latin-1").strip().rsplit("/", 4)
    return (parts[0], parts[2]) if len(parts) == 5 and _REGION.fullmatch(parts[2]) else None


# ------------------------------------------------------------------------------------------- what the request claims


def _claim_of(request: Request) -> _Claim:
    """The claim in the header or the query string; exactly one of them must be there."""
    header, presigned = request.headers.get(b"authorization"), "X-Amz-Algorithm=" in request.query
    if header is None and not presigned:
        raise SignatureFault("MissingAuthenticationToken", "Request is missing Authentication Token")
    if header is not None and presigned:
        raise _incomplete("The request is signed in its header and in its query string; sign it once.")
    claim = _header_claim(request, header) if header is not None else _query_claim(request)
    _check_signed_headers(request, claim)
    return claim


def _header_claim(request: Request, header: bytes) -> _Claim:
    algorithm, _, rest = header.strip().partition(b" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{_shown(algorithm)}'; AWS4-HMAC-SHA256 is supported.")
    fields = {}
    for item in rest.split(b","):
        name, _, value = item.strip().partition(b"=")
        fields[name] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not fields.get(name.encode())]
    timestamp = _header_timestamp(request)
    if missing or timestamp is None:
        wants = [f"Authorization header requires '{name}' parameter." for name in missing]
        if timestamp is None:
            wants.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        raise _incomplete(" ".join(wants))
    return _claim(
        fields[b"Credential"],
        signed_headers=fields[b"SignedHeaders"],
        signature=fields[b"Signature"],
        timestamp=timestamp,
    )


def _header_timestamp(request: Request) -> str | None:
    date = request.headers.get(b"x-amz-date")
    if date is not None:
        return date.decode("latin-1").strip()
    plain = request.headers.get(b"date")
    return None if plain is None else _from_http_date(plain.decode("latin-1"))


def _from_http_date(text: str) -> str:
    try:
        return email.utils.parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError):
        raise _incomplete(f"Date is neither ISO-8601 nor RFC 1123: '{text[:64]}'.") from None


def _query_claim(request: Request) -> _Claim:
    fields: dict[bytes, bytes] = {}
    for name, value in _pairs(request.query):
        if name.startswith(b"X-Amz-") and name in fields:
            raise _incomplete(f"AWS query-string parameter '{_shown(name)}' is given twice.")
        fields[name] = value
    names = ("Algorithm", "Credential", "Date", "Expires", "Signature", "SignedHeaders")
    missing = [name for name in names if not fields.get(b"X-Amz-" + name.encode())]
    if missing:
        raise _incomplete(" ".join(f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing))
    if fields[b"X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm only supports '{ALGORITHM.decode()}'.")
    return _claim(
        fields[b"X-Amz-Credential"],
        signed_headers=fields[b"X-Amz-SignedHeaders"],
        signature=fields[b"X-Amz-Signature"],
        timestamp=fields[b"X-Amz-Date"].decode("latin-1"),
        expires_s=_expires(fields[b"X-Amz-Expires"]),
    )


def _expires(value: bytes) -> int:
    if re.fullmatch(rb"[0-9]{1,6}", value) is None or not 1 <= int(value) <= EXPIRES_MAX_S:
        raise _incomplete(f"X-Amz-Expires must be a number of seconds from 1 to {EXPIRES_MAX_S}.")
    return int(value)


def _claim(
    credential: bytes, *, signed_headers: bytes, signature: bytes, timestamp: str, expires_s: int | None = None
) -> _Claim:
    """The claim, its scope checked: these checks ask nothing about keys, so they reveal nothing about them."""
    parts = credential.decode("latin-1").rsplit("/", 4)
    if len(parts) != 5:
        raise _incomplete(
            f"Credential must have five slash-separated parts, KEY/YYYYMMDD/REGION/{SERVICE}/aws4_request: "
            f"'{_shown(credential)}'."
        )
    access_key, day, region, service, terminator = parts
    _seconds(timestamp)
    if terminator != "aws4_request":
        raise _mismatch(
            f"Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator[:64]}'."
        )
    if service != SERVICE:
        raise _mismatch(f"Credential should be scoped to correct service: '{SERVICE}'.")
    if _REGION.fullmatch(region) is None:
        raise _mismatch("Credential should be scoped to a valid region.")
    if day != timestamp[:8]:
        text = f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day[:64]}'"
        raise _mismatch(f"{text} != '{timestamp[:8]}', from '{timestamp}'.")
    return _Claim(access_key, day, region, signed_headers, signature, timestamp, expires_s)


def _check_signed_headers(request: Request, claim: _Claim) -> None:
    """Whatever steers the request must be signed: an unsigned one could be exchanged on the way."""
    signed, headers = claim.signed_headers.split(b";"), request.headers
    if b"host" not in signed:
        raise _mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    if claim.expires_s is None:
        date = b"x-amz-date" if b"x-amz-date" in headers else b"date"
        if date not in signed:
            raise _mismatch(f"'{date.decode()}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in _STEERING:
        if name in headers and name not in signed:
            raise _mismatch(f"'{name.decode()}' must be a 'SignedHeader' in the AWS Authorization.")


@lru_cache(maxsize=256)
def _seconds(timestamp: str) -> float:
    """Seconds since 1970 of `20261124T081348Z`."""
    if re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", timestamp, re.ASCII):
        try:
            return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass  # a 13th month: as good as another form
    raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got '{timestamp[:64]}'.")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _incomplete(text: str) -> SignatureFault:
    return SignatureFault("IncompleteSignature", text, 400)


def _mismatch(text: str) -> SignatureFault:
    return SignatureFault("SignatureDoesNotMatch", text)


def _shown(text: bytes) -> str:
    return text[:64].decode("latin-1")


# --------------------------------------------------------------------------------------------- what is really signed


def _matches(request: Request, claim: _Claim, day_key: bytes) -> bool:
    """Whether the claimed signature is the one that `day_key` gives for what arrived."""
    body_hash = sha256(request.body).hexdigest().encode()
    declared = request.headers.get(b"x-amz-content-sha256", body_hash)
    genuine = False
    for query in _canonical_queries(request.query):
        expected = hmac.digest(day_key, _string_to_sign(request, claim, query, body_hash), "sha256").hex().encode()
        genuine |= hmac.compare_digest(expected, claim.signature)
    return genuine & hmac.compare_digest(declared, body_hash)


def _string_to_sign(request: Request, claim: _Claim, query: bytes, body_hash: bytes) -> bytes:
    headers = request.headers
    lines = [request.method.encode(), _canonical_path(request.path), query]
    lines += (name + b":" + b" ".join(headers.get(name, b"").split()) for name in claim.signed_headers.split(b";"))
    lines += (b"", claim.signed_headers, body_hash)
    canonical = sha256(b"\n".join(lines)).hexdigest()
    scope = f"{claim.day}/{claim.region}/{SERVICE}/aws4_request"
    return f"{ALGORITHM.decode()}\n{claim.timestamp}\n{scope}\n{canonical}".encode()


@lru_cache(maxsize=1_024)
def _canonical_path(path: str) -> bytes:
    """Without dot segments and empty ones, and encoded once more (every service but S3)."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if path.endswith("/") and kept else ""
    return quote(f"/{'/'.join(kept)}{tail}", safe="/~").encode()


def _canonical_queries(query: str) -> tuple[bytes, ...]:
    """The forms in which a client may have signed its query string.

    Encoded anew, as the rule says; or as sent: some clients sign `+` for a space. Either one covers every byte.
    """
    if not query:
        return (b"",)
    kept = [pair for pair in query.split("&") if pair and not pair.startswith("X-Amz-Signature=")]
    anew = _join(sorted((_encode(name), _encode(value)) for name, _, value in (pair.partition("=") for pair in kept)))
    as_sent = _join(sorted((name, value) for name, _, value in (pair.partition("=") for pair in kept)))
    return (anew,) if anew == as_sent else (anew, as_sent)


def _encode(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _join(pairs: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    """Names and values of a query string, decoded."""
    split = (pair.partition("=") for pair in query.split("&"))
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in split]
