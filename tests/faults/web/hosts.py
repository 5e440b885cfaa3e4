"""Hosts for tests: network namespaces on one bridge, so that each has addresses, listeners and a cable of its own.

bridge 10.213.x.1 ── the test, the database, the balancer
  ├── host 0: 10.213.x.10
  └── host 1: 10.213.x.11
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """`address` is the bridge's, where this process can be reached by all."""

    def __init__(self, count: int) -> None:
        mark = os.getpid()
        self._bridge = f"hr{mark}"
        self._net = f"10.213.{mark % 250}"
        self.address = f"{self._net}.1"
        self.network = f"{self._net}.0/24"
        self.names = [f"hr{mark}n{place}" for place in range(count)]

    def make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for place, name in enumerate(self.names):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}v", "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"{self.address_of(place)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def address_of(self, place: int) -> str:
        return f"{self._net}.{10 + place}"

    def on(self, place: int) -> list[str]:
        """What stands before a command that is to run there."""
        return ["ip", "netns", "exec", self.names[place]]

    def unplug(self, place: int) -> None:
        """Its cable: nobody gets an answer, and nobody a reset."""
        _ip("link", "set", f"{self.names[place]}v", "down")

    def plug(self, place: int) -> None:
        _ip("link", "set", f"{self.names[place]}v", "up")

    def end(self) -> None:
        """Whoever runs there, and all of it."""
        if shutil.which("ip") is None:
            return
        for name in self.names:
            told = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True).stdout
            for pid in told.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """Skips the test where namespaces cannot be made (without root, say); in CI that is a failure."""
    made = Hosts(count)
    try:
        try:
            made.make()
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', b'') or error}")
        yield made
    finally:
        made.end()
