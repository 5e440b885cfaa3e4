"""Who may do what: visitors, tokens of forms, users, sessions. No I/O but the reading of the users file.

Every browser has a cookie with a random id. The token of its forms is a MAC of that id, so a page of another site can neither
read nor guess it. Where users are set, the id is also the session: it is made anew at each sign-in.

The users file is TOML, readable by its owner alone; `headrace console --hash-password` prints the hash:

    [[users]]
    name = "anna"
    password = "scrypt$16384$8$1$…$…"
    read_only = false                   # optional
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import tomllib
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from headrace.console import limits
from headrace.errors import CallerError

_SCRYPT: Final = (16_384, 8, 1)  # OWASP's least: 16 MiB, about 50 ms
_SCRYPT_BYTES_MAX: Final = 64 * 1_048_576
_MINUTE_S: Final = 60.0


class UsersUnusable(CallerError):
    """The users file cannot be used; the text says why, and holds no password."""


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may sign in. `password` is a hash as `hash_password` makes them."""

    name: str
    password: str
    read_only: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: list[User]


def load_users(path: Path) -> dict[str, User]:
    """Raises: UsersUnusable."""
    try:
        status = path.stat()
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsersUnusable(f"users file {path}: others may read it; run: chmod 600 {path}")
        if status.st_size > limits.USERS_FILE_BYTES_MAX:
            raise UsersUnusable(f"users file {path}: longer than {limits.USERS_FILE_BYTES_MAX} bytes")
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).users
    except OSError as error:
        raise UsersUnusable(f"users file {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsersUnusable(f"users file {path}: {error}") from None
    if not found:
        raise UsersUnusable(f"users file {path}: it names nobody")
    for user in found:
        if _parts(user.password) is None:
            raise UsersUnusable(f"users file {path}: the password of {user.name!r} is no hash of --hash-password")
    return {user.name: user for user in found}


def hash_password(password: str, salt: bytes | None = None) -> str:
    """`scrypt$n$r$p$salt$hash`, the last two in base64."""
    salt = os.urandom(16) if salt is None else salt
    n, r, p = _SCRYPT
    return f"scrypt${n}${r}${p}${_text(salt)}${_text(_scrypt(password, salt, n, r, p))}"


def password_fits(password: str, hashed: str) -> bool:
    """Slow on purpose, in constant time. Call it in a thread."""
    parts = _parts(hashed)
    if parts is None or len(password) > limits.PASSWORD_CHARACTERS_MAX:
        return False
    n, r, p, salt, wanted = parts
    return hmac.compare_digest(_scrypt(password, salt, n, r, p), wanted)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_BYTES_MAX)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


NOBODY: Final = f"scrypt${_SCRYPT[0]}${_SCRYPT[1]}${_SCRYPT[2]}${_text(bytes(16))}${_text(os.urandom(64))}"
"""What the password of a user who does not exist is compared with, so that the time tells nothing."""


def _parts(hashed: str) -> tuple[int, int, int, bytes, bytes] | None:
    try:
        kind, n, r, p, salt, wanted = hashed.split("$")
        found = int(n), int(r), int(p), base64.b64decode(salt, validate=True), base64.b64decode(wanted, validate=True)
    except ValueError:
        return None
    within = (
        kind == "scrypt" and 128 * found[0] * found[1] <= _SCRYPT_BYTES_MAX and found[0] >= 2 and len(found[4]) >= 16
    )
    return found if within else None


class Attempts:
    """Bounds how often a password may be tried: of one address, and of all together."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._all: deque[tuple[float, str]] = deque()

    def allows(self, peer: str) -> bool:
        """Whether this one may be tried now; it counts if so."""
        now_s = self._now_s()
        while self._all and self._all[0][0] <= now_s - _MINUTE_S:
            self._all.popleft()
        own = sum(known == peer for _, known in self._all)
        if len(self._all) >= limits.SIGN_INS_PER_MINUTE or own >= limits.SIGN_INS_PER_MINUTE_EACH:
            return False
        self._all.append((now_s, peer))
        return True


class Visitors:
    """Ids of browsers, their tokens, and who is signed in with which. Sessions end by time, by sign-out, by our end."""

    def __init__(self, now_s: Callable[[], float], *, session_s: float) -> None:
        """Args: now_s: a clock that never steps."""
        self._secret = secrets.token_bytes(32)
        self._now_s = now_s
        self._session_s = session_s
        self._sessions: dict[str, tuple[str, float]] = {}

    @staticmethod
    def new_id() -> str:
        return secrets.token_urlsafe(24)

    def token(self, visitor: str) -> str:
        """What the forms of this browser carry."""
        return hmac.digest(self._secret, visitor.encode(), "sha256").hex()

    def token_fits(self, visitor: str, token: str) -> bool:
        return bool(visitor) and hmac.compare_digest(self.token(visitor).encode(), token.encode())

    def sign_in(self, name: str) -> str:
        """The id of a new session."""
        if len(self._sessions) >= limits.SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        visitor = self.new_id()
        self._sessions[visitor] = (name, self._now_s() + self._session_s)
        return visitor

    def sign_out(self, visitor: str) -> None:
        self._sessions.pop(visitor, None)

    def sign_out_all(self, names: Collection[str]) -> None:
        """Every session of these users."""
        self._sessions = {key: session for key, session in self._sessions.items() if session[0] not in names}

    def who(self, visitor: str) -> str | None:
        """The name of who is signed in."""
        name, until_s = self._sessions.get(visitor, ("", 0.0))
        if not name or self._now_s() >= until_s:
            self._sessions.pop(visitor, None)
            return None
        return name
