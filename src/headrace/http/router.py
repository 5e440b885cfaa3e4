"""Which handler a request goes to, by its path."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.http.messages import Handler, Request


class Router:
    """A Handler of handlers: an exact path first, then the longest prefix, then the default. Paths are compared as sent."""

    __slots__ = ("_default", "_exact", "_prefixes", "_starts")

    def __init__(
        self,
        default: Handler,
        *,
        exact: Mapping[str, Handler] | None = None,
        prefixes: Mapping[str, Handler] | None = None,
    ) -> None:
        """Args:
        default: takes every path that nothing else takes.
        exact: by whole path, without the query.
        prefixes: by the start of the path; `/native/` takes `/native/x`, not `/native`.
        """
        self._default = default
        self._exact = dict(exact or {})
        self._prefixes = sorted((prefixes or {}).items(), key=lambda item: len(item[0]), reverse=True)
        self._starts = tuple(prefix for prefix, _ in self._prefixes)

    def __call__(self, request: Request) -> None:
        self.find(request.path)(request)

    def find(self, path: str) -> Handler:
        handler = self._exact.get(path)
        if handler is not None:
            return handler
        if path.startswith(self._starts):
            return next(handler for prefix, handler in self._prefixes if path.startswith(prefix))
        return self._default
