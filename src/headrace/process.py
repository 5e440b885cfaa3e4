"""What a server asks of its process: descriptors, systemd, a folder of its own."""

from __future__ import annotations

import gc
import os
import resource
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

from headrace.errors import StoreUnusable
from headrace.queue.store import files

DESCRIPTORS_MAX: Final = 1_048_576  # more is never needed, and some kernels allow a billion

_FOLDER_BYTES_MAX: Final = 87
_TELL_S: Final = 1.0  # a manager that does not read must not keep us
_PAGE_BYTES: Final = resource.getpagesize()

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread may keep the interpreter from another. The default of 5 ms is longer than most commits: the loop
would wait for the thread that commits, and the other way round."""
COLLECT_EACH: Final = 10_000
"""So many objects more before cycles are looked for. By default 700, which each batch makes: a broker looked 20 times a second,
and every hundredth time through all that it had ever imported, 25 ms, in which nobody was answered."""


def raise_descriptor_limit() -> int:
    """Allow as many open descriptors as the system lets us (each connection is one); returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft  # macOS names a limit that it does not grant
    return wanted


def started_ticks(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 where the system does not tell, and -1 if it is dead and
    only its parent has not asked yet: where there is no init, nobody ever does."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in ("Z", "X") else int(fields[19])


def is_running(pid: int, started: int) -> bool:
    """Whether the process that began then (`started_ticks`) is there. Where the system does not tell when a process began:
    whether there is one of that pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's: it is there
    return started == started_ticks(pid)


def shorten_switch_interval() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def collect_seldom() -> None:
    """Look for cycles among new objects seldom, and among those that are there never. For a process that has imported its code."""
    gc.freeze()
    gc.set_threshold(COLLECT_EACH, *gc.get_threshold()[1:])


def notify_systemd(state: str) -> None:
    """Tell the service manager, if one listens: `READY=1`, `STOPPING=1`. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_TELL_S)
            channel.sendto(state.encode(), target)
    except OSError:
        return  # a manager that went away, or hangs, is no reason to stop serving


def private_folder() -> Path:
    """For the sockets between processes; their names must not get longer than the system takes (about 100 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-"))
    if len(os.fsencode(folder)) > _FOLDER_BYTES_MAX:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="headrace-", dir="/tmp"))
    return folder


def rss_bytes() -> int:
    """Resident memory; on systems without /proc the most there has been."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1_024


def prepare_folder(folder: Path) -> None:
    """Make the data folder, for its owner alone.

    An empty folder that is open to others is closed; a filled one is not touched: it may be somebody's home, and is
    refused if others may write in it, since they could put files there that we would open.

    Raises:
        StoreUnusable: with the reason in one line.
    """
    files.refuse_address(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_mode & 0o077 and status.st_uid == os.geteuid() and not any(folder.iterdir()):
            folder.chmod(0o700)
            status = folder.stat()
    except FileExistsError:
        raise StoreUnusable(str(folder), "it is not a folder") from None
    except OSError as error:
        raise StoreUnusable(str(folder), error.strerror or str(error)) from None
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise StoreUnusable(str(folder), f"others may write in it (mode {mode:04o}); run: chmod 700 {folder}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnusable(str(folder), "it is read-only for this user")
