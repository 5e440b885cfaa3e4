"""A broker beside another server, when its `--broker` names a folder: one process, restarted if it dies.

Who may read the folder may use it, by the socket there. Its TCP port has a key that nobody knows: what is stored has the
clients' cookies and Authorization, and tasks' arguments, and loopback is everybody's on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from headrace.children import Restarts, ending, spawn, wait_ready
from headrace.errors import StoreUnusable
from headrace.native.endpoint import is_served
from headrace.queue.store.files import refuse_address
from headrace.settings import SettingsError

_READY_S: Final = 10.0
_WATCH_S: Final = 1.0
_TAKE_OVER_S: Final = 10.0
"""A broker that somebody else runs on the folder may be away for so long: to be restarted. Then one is started here."""
_END_S: Final = 15.0
"""A broker drains for 10 s at most; then it is killed, which is always safe."""


def check_broker(broker: str | None) -> None:
    """Refuse a `--broker` that would become a folder of that name: `localhost:9324`, an address without its `http://`.

    Raises: SettingsError.
    """
    if not broker or "://" in broker:
        return
    try:
        refuse_address(Path(broker))
    except StoreUnusable as error:
        raise SettingsError(f"--broker {broker}", error.reason) from None


class ManagedBroker:
    """`start`, `reap` at each SIGCHLD, `stop`. A folder that another broker serves is left to that one, while it does."""

    def __init__(self, folder: Path, *, keys: Path, on_ended: Callable[[], None], owner: str = "web") -> None:
        """Args:
        keys: of the file that is made for the broker's key; in a folder that only the user may enter.
        owner: whose log it is told in, as `{owner}.broker.ended`: `web` or `work`.
        """
        self._log = logging.getLogger(f"headrace.{owner}")
        self._ids = {"action": f"{owner}.broker.ended"}
        self._folder = folder
        self._keys = keys
        self._on_ended = on_ended
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._restarts = Restarts()

    async def start(self) -> None:
        """Wait until it answers, but not for ever: a long recovery is no reason to serve nothing else."""
        _write_keys(self._keys)
        if is_served(self._folder):
            self._watch(self._loop.time())
            return
        self._spawn()
        if self._process is not None:
            await wait_ready(lambda: is_served(self._folder), self._process, within_s=_READY_S)

    def _watch(self, served_s: float) -> None:
        """Look after a broker that is not our child: perhaps of a server that was killed.

        Args: served_s: when the folder was last served.
        """
        now_s = self._loop.time()
        if self._stopping:
            return
        if is_served(self._folder):
            served_s = now_s
        elif now_s - served_s >= _TAKE_OVER_S:
            self._log.warning("the broker of the folder is gone; one is started", extra=self._ids)
            self._spawn()
            return
        self._loop.call_later(_WATCH_S, self._watch, served_s)

    def reap(self) -> None:
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return
        self._process = None
        self._on_ended()
        if self._stopping:
            return
        self._try_again("has ended", ending(code))

    @property
    def over(self) -> bool:
        return self._process is None

    def stop(self) -> None:
        self._stopping = True
        if self._process is not None:
            self._process.terminate()
            self._loop.call_later(_END_S, self.kill)

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    def _spawn(self) -> None:
        if self._stopping:
            return
        self._restarts.started(self._loop.time())
        arguments = ["broker", "--data", str(self._folder), "--host", "127.0.0.1", "--port", "0"]
        try:
            self._process = spawn([*arguments, "--keys", str(self._keys)])
        except (OSError, subprocess.SubprocessError) as error:  # the system has no room for it
            self._try_again("cannot be started", str(error))

    def _try_again(self, what: str, how: str) -> None:
        self._log.error("the broker %s (%s); it is started again", what, how, extra=self._ids)
        self._loop.call_later(self._restarts.ended(self._loop.time()), self._spawn)


def _write_keys(path: Path) -> None:
    key = {"id": "HEADRACEWEB000000000", "secret": secrets.token_urlsafe(32)}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode({"principals": [{"name": "web", "keys": [key]}]}))
