"""Middleware around an exchange: the base of what changes a request or an answer on its way."""
# ruff: noqa: SLF001  # one state, two objects: the underscored methods of one exchange lead to those of the other

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields


class Wrapped(Exchange):
    """Another exchange with some methods changed; a consumer sees no difference, whatever it is set or asked.

    There is one state, that of the innermost exchange: every attribute here is a view of it. The checks of `Exchange`
    run once: from the outermost public method that is not overridden, the underscored ones lead inwards. So a subclass

    - changes what the consumer says by overriding a public method, and calls `inner`'s with something else: that is
      what is checked and counted (`sent_bytes` stays what the client gets), or
    - changes what has been checked, by overriding an underscored one.
    """

    __slots__ = ("inner",)

    def __init__(self, inner: Exchange) -> None:
        # Not Exchange.__init__: it would reset the state of `inner`.
        self.inner: Final = inner

    def take(self) -> bytes:
        return self.inner.take()

    @property
    def ended(self) -> bool:
        return self.inner.ended

    @property
    def writable(self) -> bool:
        return self.inner.writable

    def release(self) -> None:
        self.inner.release()

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        self.inner._respond(status, fields, body, length)

    def _start(self, status: int, fields: Fields) -> None:
        self.inner._start(status, fields)

    def _send(self, data: bytes) -> None:
        self.inner._send(data)

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self.inner._send_file(fd, offset, count)

    def _finish(self) -> None:
        self.inner._finish()

    def _tunnel(self, fields: Fields) -> None:
        self.inner._tunnel(fields)

    def _inform(self, status: int, fields: Fields) -> None:
        self.inner._inform(status, fields)

    def _abort(self) -> None:
        self.inner._abort()

    def _done(self) -> None:
        self.inner._done()  # who has asked for `on_done` knows the inner one


def _view(name: str) -> Any:
    def set_inner(wrapped: Wrapped, value: object) -> None:
        setattr(wrapped.inner, name, value)

    return property(attrgetter("inner." + name), set_inner)


for _name in Exchange.__slots__:
    setattr(Wrapped, _name, _view(_name))
