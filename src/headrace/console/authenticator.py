"""Authentication: the browser's cookie, its user, and signing in."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace.console.access import NOBODY, Attempts, User, Visitors, password_fits
from headrace.console.addresses import cookie_of
from headrace.console.notices import Notice
from headrace.console_settings import ConsoleSettings
from headrace.http.exchange import Exchange

_log: Final = logging.getLogger("headrace.console")

_HASHED_AT_ONCE: Final = 2  # each takes 16 MiB and a thread


class Authenticator:
    """Identifies visitors by cookie and signs in the users of the users file. `users` may change at run time."""

    def __init__(
        self,
        visitors: Visitors,
        attempts: Attempts,
        users: dict[str, User],
        settings: ConsoleSettings,
        *,
        secure: bool,
        port: int,
    ) -> None:
        """Args:
        users: who may sign in; empty: nobody has to.
        secure: whether browsers come by TLS.
        port: tells the cookies of several consoles of one machine apart: cookies know no ports.
        """
        self.visitors, self.attempts, self._users, self._settings = visitors, attempts, users, settings
        self._cookie = f"{'__Host-' if secure else ''}headrace-{port}"
        self._cookie_tail = f"; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)

    @property
    def asks(self) -> bool:
        """Whether anybody has to sign in."""
        return bool(self._users)

    def visitor(self, exchange: Exchange) -> str:
        """The id of the browser; empty: it has none yet."""
        return cookie_of(exchange.headers, self._cookie)

    def set_cookie(self, visitor: str) -> tuple[bytes, bytes]:
        """The header that gives a browser its id; an empty one takes it away."""
        end = "" if visitor else "; Max-Age=0"
        return b"Set-Cookie", f"{self._cookie}={visitor}{self._cookie_tail}{end}".encode()

    def who(self, visitor: str) -> str | None:
        """The user's name; empty where nobody has to sign in, None for one who has to."""
        if not self._users:
            return ""
        name = self.visitors.who(visitor)
        return name if name in self._users else None

    def may_change(self, user: str) -> bool:
        known = self._users.get(user)
        return not self._settings.read_only and not (known is not None and known.read_only)

    async def sign_in(self, exchange: Exchange, *, name: str, password: str) -> str | Notice:
        """The id of the new session, or why there is none: that does not say which of the two was wrong."""
        peer = self._peer(exchange)
        if not self.attempts.allows(peer):
            _log.warning("too many sign-ins", extra={"action": "console.sign_in_limited", "peer": peer})
            return Notice("Too many attempts. Wait a minute, then try again.", bad=True)
        known = self._users.get(name)
        async with self._hashing:
            fits = await asyncio.to_thread(password_fits, password, known.password if known is not None else NOBODY)
        if known is None or not fits:
            _log.warning("a sign-in failed", extra={"action": "console.sign_in_failed", "peer": peer})
            return Notice("Name or password is wrong.", bad=True)
        _log.info("signed in", extra={"action": "console.signed_in", "user": name, "peer": peer})
        return self.visitors.sign_in(name)

    def _peer(self, exchange: Exchange) -> str:
        """Whose attempts are counted together; behind a proxy, by the address that it has put last."""
        forwarded = exchange.headers.get(b"x-forwarded-for", b"")
        if not self._settings.behind_proxy or not forwarded:
            return exchange.peer
        return forwarded.rpartition(b",")[2].strip().decode("latin-1")
