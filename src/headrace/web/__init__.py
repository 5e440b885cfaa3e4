"""The web server: connections produce requests, a bounded queue holds them, worker processes pull them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.web.stored.durable_marks import durable

__all__ = ["durable"]


def __getattr__(name: str) -> Any:  # the edge and the supervisor need none of it
    if name == "durable":
        from headrace.web.stored.durable_marks import durable  # noqa: PLC0415

        return durable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
