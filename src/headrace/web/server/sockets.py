"""Listening sockets: bound once, by the supervisor, and inherited by those who accept.

The supervisor keeps them open. So a process that dies takes no waiting client with it, and its successor finds them in
the backlog.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from headrace.http.listener import AddressUnusable

SPREADS: Final = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")
"""Whether the kernel deals connections out over sockets of the same port. BSD and macOS give all to the last one."""

_INHERITED: Final = "HEADRACE_SOCKETS_{kind}"
"""Names the descriptors that an old supervisor hands to the new one: `LISTEN` and `ADMIN`."""
_LISTEN_FDS_START: Final = 3
_UNIX_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103  # sun_path less its NUL


def open_sockets(host: str, port: int, uds: Path | None, *, count: int) -> list[socket.socket]:
    """Bound sockets for `count` processes: one each where that spreads connections evenly, else one for all.

    A shared socket is taken by whoever is quickest to accept: often the same process, several times in a row.

    Raises: AddressUnusable.
    """
    found = inherited("listen") or _from_systemd()
    if found:
        _check_passed(found, uds)
        return found
    if uds is not None:
        return [_open_unix(uds)]
    if count == 1 or not SPREADS:
        return [_open_tcp(host, port, shared=False)]
    # Whoever else listens there with SO_REUSEPORT would not be noticed; without it he is.
    with _open_tcp(host, port, shared=False) as probe:
        port = probe.getsockname()[1]
    return [_open_tcp(host, port, shared=True) for _ in range(count)]


def open_one(host: str, port: int, uds: Path | None) -> socket.socket:
    """As `open_sockets`, for one process, and without inheriting. Raises: AddressUnusable."""
    return _open_unix(uds) if uds is not None else _open_tcp(host, port, shared=False)


def distribute(sockets: Sequence[socket.socket], count: int) -> list[list[socket.socket]]:
    """What each of `count` processes listens on: every socket has somebody, whoever has opened them, and however many;
    where there are fewer than processes they are shared."""
    return [list(sockets[number::count]) or [sockets[number % len(sockets)]] for number in range(count)]


def inherited(kind: str) -> list[socket.socket]:
    """From the supervisor that this one replaces; `kind` is `listen` or `admin`. Once: then they are taken."""
    named = os.environ.pop(_INHERITED.format(kind=kind.upper()), "")
    return [socket.socket(fileno=int(number)) for number in named.split(",")] if named else []


def export(listen: Sequence[socket.socket], admin: Sequence[socket.socket]) -> dict[str, str]:
    """The environment in which `inherited` finds them."""
    found = {"LISTEN": listen, "ADMIN": admin}
    return {
        _INHERITED.format(kind=kind): ",".join(str(one.fileno()) for one in sockets)
        for kind, sockets in found.items()
        if sockets
    }


def _from_systemd() -> list[socket.socket]:
    """Source: sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        count = int(os.environ.get("LISTEN_FDS", "0"))
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        return [socket.socket(fileno=_LISTEN_FDS_START + index) for index in range(count)]
    return []


def _check_passed(found: Sequence[socket.socket], uds: Path | None) -> None:
    """Raises: AddressUnusable: they are not at `uds`, though that is asked for."""
    if uds is None or uds.resolve() in [
        Path(name).resolve() for one in found if isinstance(name := one.getsockname(), str)
    ]:
        return
    for one in found:
        one.close()
    raise AddressUnusable(
        str(uds),
        "the inherited sockets (from systemd, or from the server that this one replaces) differ: leave out --uds, "
        "name the path as ListenStream=, or restart",
    )


def _open_tcp(host: str, port: int, *, shared: bool) -> socket.socket:
    address = f"{host}:{port}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressUnusable(address, error.strerror or str(error)) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(target)
        _listen(listening)
    except OSError as error:
        listening.close()
        raise AddressUnusable(address, error.strerror or str(error)) from error
    return listening


def _open_unix(path: Path) -> socket.socket:
    """Who may connect is said by the umask, as for every file, and by the folder."""
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES_MAX:
        raise AddressUnusable(str(path), f"the path is longer than {_UNIX_PATH_BYTES_MAX} bytes")
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        _listen(listening)
    except OSError as error:
        listening.close()
        raise AddressUnusable(str(path), error.strerror or str(error)) from error
    return listening


def _listen(listening: socket.socket) -> None:
    """At once: so a port that is taken is noticed, and clients wait in the backlog while the rest starts."""
    listening.setblocking(False)
    listening.listen(2_048)  # the kernel caps it at somaxconn


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise AddressUnusable(str(path), "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # a full backlog, or no permission: another server is alive
    raise AddressUnusable(str(path), "another server is listening there")


def address_of(listening: socket.socket, *, secure: bool) -> str:
    """The URL, for people and logs."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}"
