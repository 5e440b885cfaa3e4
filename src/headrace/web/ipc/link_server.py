"""Accepts the connections of one application's workers at an edge; `worker_link.py` serves each of them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final

from headrace.http.listener import AddressUnusable
from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.dispatch.limits import WORKERS_MAX
from headrace.web.ipc.worker_link import WorkerLink

_log: Final = logging.getLogger("headrace.web")


class LinkServer:
    """Listens for the workers of one application. Create on the running loop.

    Invariant: at most WORKERS_MAX links are open.
    """

    def __init__(self, path: Path, dispatcher: Dispatcher) -> None:
        """Listens at once, on a socket that only its owner may use.

        Raises: AddressUnusable.
        """
        self.dispatcher = dispatcher
        self._path = path
        self._links: set[WorkerLink] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        listening = _bind(path)
        self._opening = asyncio.get_running_loop().create_task(self._open(listening), name=f"links at {path}")

    async def _open(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.get_running_loop().create_unix_server(lambda: WorkerLink(self), sock=listening)

    async def close(self, grace_s: float = 5.0) -> None:
        """Say LEAVE to all workers; wait until they have closed, or cut. Idempotent."""
        (await self._opening).close()
        self._path.unlink(missing_ok=True)
        for link in tuple(self._links):
            link.leave()
        try:
            async with asyncio.timeout(grace_s):
                await self._all_closed.wait()
        except TimeoutError:
            for link in tuple(self._links):
                link.abort()
            await self._all_closed.wait()

    # From the links

    def opened(self, link: WorkerLink) -> None:
        self._links.add(link)
        self._all_closed.clear()
        if len(self._links) > WORKERS_MAX:
            _log.error(
                "more than %d links: start fewer workers, or threads", WORKERS_MAX, extra={"action": "web.link.refused"}
            )
            link.transport.abort()

    def closed(self, link: WorkerLink) -> None:
        self._links.discard(link)
        if not self._links:
            self._all_closed.set()


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a predecessor: the folder is the server's own
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            os.fchmod(listening.fileno(), 0o600)  # before the file exists, so that no other user connects in between
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(1_024)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise AddressUnusable(str(path), error.strerror or str(error)) from error
    return listening
