"""Who may use the broker: the keys file, its principals, their access keys.

The file is TOML (or JSON, by its name). It holds secrets, so it must be readable by its owner alone:

    [[principals]]
    name = "orders-service"
    account = "111122223333"                            # optional, 000000000000
    actions = ["SendMessage", "GetQueueUrl"]            # optional, all; wildcards * and ?
    queues = ["orders-*"]                               # optional, all; names or ARNs, wildcards * and ?
    operator = false                                    # optional; true: may also use the native API
    keys = [{ id = "AKIAORDERS0000000001", secret = "at least sixteen characters" }]

A principal has up to two live keys, so that a new one can be rolled out before the old one is taken away.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from headrace.errors import CallerError
from headrace.queue.limits import ACCOUNT_DEFAULT

KEYS_FILE_BYTES_MAX: Final = 4 * 1_048_576  # about 20,000 principals; a larger file is some other file
KEYS_PER_PRINCIPAL_MAX: Final = 2  # the old one and the new one of a rotation, as AWS IAM allows
SECRET_CHARACTERS_MIN: Final = 16  # AWS's have 40; below 16 a captured signature can be guessed at offline


@dataclass(eq=False)
class KeysUnusable(CallerError):
    """The keys file cannot be used; the keys in use before, if any, stay in use. Never carries a secret."""

    path: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"keys file {self.path}{', ' + self.place if self.place else ''}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from.

    Attributes:
        account: twelve digits; the queues of this account are its own.
        name: the user's name within the account.
        access_key: the id of the key that signed; None while authentication is off, and then nobody is told apart:
            every queue is this principal's own.
        actions: what it may ever do, by SQS action name; wildcards `*` and `?`, case does not matter.
        queues: on which queues, by name or ARN; wildcards `*` and `?`.
        operator: whether it may use the native API, which knows no policies and reaches every account's queues.
    """

    account: str
    name: str
    access_key: str | None
    actions: tuple[str, ...] = ("*",)
    queues: tuple[str, ...] = ("*",)
    operator: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:user/{self.name}"

    @property
    def unrestricted(self) -> bool:
        """Whether the keys file puts no bound on what it does."""
        return "*" in self.actions and "*" in self.queues


ANONYMOUS: Final = Principal(account=ACCOUNT_DEFAULT, name="anonymous", access_key=None)
"""Everybody, while no keys are configured."""


@dataclass(frozen=True, slots=True)
class Key:
    """An access key: whose it is, and its secret (never shown)."""

    principal: Principal
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All access keys, by id. Immutable: a reload makes another."""

    keys: dict[str, Key]

    def find(self, access_key: str) -> Key | None:
        return self.keys.get(access_key)


_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{3,128}$")]
_Secret = Annotated[str, msgspec.Meta(min_length=SECRET_CHARACTERS_MIN, max_length=1_024)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+=,.@_-]{1,64}$")]  # IAM user names
_Account = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{12}$")]
_Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _KeyEntry(msgspec.Struct, forbid_unknown_fields=True):
    id: _Id
    secret: _Secret


class _PrincipalEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: _Name
    keys: list[_KeyEntry]
    account: _Account = ACCOUNT_DEFAULT
    actions: tuple[_Pattern, ...] = ("*",)
    queues: tuple[_Pattern, ...] = ("*",)
    operator: bool = False


class _KeysFile(msgspec.Struct, forbid_unknown_fields=True):
    principals: list[_PrincipalEntry]


def load_keys(path: Path) -> KeyRing:
    """Read and check the keys file.

    Raises:
        KeysUnusable: it is missing, open to others, not TOML or JSON, or breaks a rule; names the line or the field.
    """
    content = _parse(path, _read_private(path))
    try:
        entries = msgspec.convert(content, _KeysFile)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
        raise KeysUnusable(str(path), place.strip("`").removeprefix("$."), reason) from None
    return _ring(path, entries)


def _read_private(path: Path) -> bytes:
    """The file's bytes, if nobody but its owner (us, or root) can read or write it."""
    try:
        # Checked on the open file: what is checked is what is read.
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            content = file.read(KEYS_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeysUnusable(str(path), "", f"cannot be read: {error.strerror}") from None
    if len(content) > KEYS_FILE_BYTES_MAX:
        raise KeysUnusable(str(path), "", f"is longer than {KEYS_FILE_BYTES_MAX} bytes")
    return content


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeysUnusable(str(path), "", "is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise KeysUnusable(
            str(path), "", f"belongs to user {status.st_uid}; it must belong to the broker's user or root"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise KeysUnusable(str(path), "", f"has mode {mode:04o}, open to others; run: chmod 600 {path}")


def _parse(path: Path, content: bytes) -> Any:
    """TOML, or JSON if the name ends so. Both parsers name the place of an error, neither shows the content there."""
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(content)
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise KeysUnusable(str(path), f"byte {error.start}", "is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        reason, place = _toml_place(str(error))
        raise KeysUnusable(str(path), place, f"is not TOML: {reason}") from None
    except msgspec.DecodeError as error:
        line = _json_line(content, str(error))
        raise KeysUnusable(str(path), line, f"is not JSON: {error}") from None


def _toml_place(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, "")


def _json_line(content: bytes, text: str) -> str:
    found = re.search(r"\(byte (\d+)\)", text)
    line = content.count(b"\n", 0, int(found[1])) + 1 if found else 0
    return f"line {line}" if found else ""


def _ring(path: Path, entries: _KeysFile) -> KeyRing:
    keys: dict[str, Key] = {}
    for index, entry in enumerate(entries.principals):
        place = f"principals[{index}].keys"
        if not 1 <= len(entry.keys) <= KEYS_PER_PRINCIPAL_MAX:
            reason = f"{entry.name} has {len(entry.keys)} keys; 1 to {KEYS_PER_PRINCIPAL_MAX} are allowed"
            raise KeysUnusable(str(path), place, reason)
        for key in entry.keys:
            if key.id in keys:
                raise KeysUnusable(str(path), place, f"key id {key.id} is used twice")
            keys[key.id] = Key(_principal(entry, key.id), key.secret)
    if not keys:
        raise KeysUnusable(str(path), "principals", "names nobody; add a principal or start without --keys")
    return KeyRing(keys)


def _principal(entry: _PrincipalEntry, access_key: str) -> Principal:
    return Principal(entry.account, entry.name, access_key, entry.actions, entry.queues, entry.operator)
