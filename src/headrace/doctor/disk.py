"""The data folder: whose it is, on what file system, how much room, and whether a sync is one."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from headrace.doctor.lines import Line, ok, problem, size_text, warning

NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs", "lustre")
MEMORY: Final = ("tmpfs", "ramfs")
FREE_MIN_BYTES: Final = 64 * 1_048_576  # the WAL (20 MB), the reserve (8 MiB), and room for a checkpoint
FREE_LOW_BYTES: Final = 1_073_741_824
SYNCS: Final = 100
BLOCK_BYTES: Final = 4_096
HONEST_MIN_S: Final = 20e-6  # the fastest disks with a capacitor take about as long; the bus alone takes half of it
SLOW_S: Final = 0.020
_MOUNT: Final = re.compile(r"^\d+ \d+ \S+ \S+ (\S+) .*? - (\S+) ", re.MULTILINE)


def look_at_disk(data: Path, mounts: str) -> Iterator[Line]:
    """Args: mounts: the content of `/proc/self/mountinfo`, empty where there is none."""
    folder = existing(data)
    yield from judge_folder(data, folder)
    kind = file_system(folder, mounts)
    yield judge_file_system(kind)
    usage = os.statvfs(folder)
    yield judge_room(usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize)
    try:
        yield judge_syncs(sync_times(folder), kind)
    except OSError as error:
        yield problem("sync", f"cannot write in {folder}: {error.strerror}", "give the folder to the broker's user")


def existing(data: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    data = data.absolute()
    return next(path for path in (data, *data.parents) if path.is_dir())


def judge_folder(data: Path, folder: Path) -> Iterator[Line]:
    if folder != data.absolute():
        writable = os.access(folder, os.W_OK | os.X_OK)
        what = f"{data} is not there yet"
        yield (
            ok("data folder", what)
            if writable
            else problem("data folder", f"{what}, and {folder} cannot be written", f"make {data} for the broker's user")
        )
        return
    status = folder.stat()
    mode = status.st_mode & 0o777
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield problem(
            "data folder", f"{data} has mode {mode:04o}, owner {status.st_uid}", "give it to the broker's user"
        )
    elif mode & 0o077:
        yield warning("data folder", f"{data} has mode {mode:04o}: others may read messages", f"chmod 700 {data}")
    else:
        yield ok("data folder", f"{data}, mode {mode:04o}")


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system that `folder` is on; empty if unknown."""
    best = ("", "")
    for found in _MOUNT.finditer(mounts):
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), found[1])
        inside = folder == Path(place) or Path(place) in folder.parents
        if inside and len(place) >= len(best[0]):
            best = (place, found[2])
    return best[1]


def judge_file_system(kind: str) -> Line:
    if kind in NETWORK or (kind.startswith("fuse.") and kind != "fuse.fuseblk"):
        return problem("file system", f"{kind}: locks and syncs over a network may lie", "use a local disk")
    if kind in MEMORY:
        return problem("file system", f"{kind} is memory: all is lost at a power cut", "use a disk")
    if kind in ("overlay", "aufs"):
        return warning(
            "file system", f"{kind}: a container's own layer goes with it", "mount a volume for the data folder"
        )
    return ok("file system", kind or "unknown")


def judge_room(free_bytes: int, total_bytes: int) -> Line:
    fact = f"{size_text(free_bytes)} of {size_text(total_bytes)} free"
    if free_bytes < FREE_MIN_BYTES:
        return problem("room", fact, "free some: sends are refused when the disk is full")
    if free_bytes < FREE_LOW_BYTES:
        return warning("room", fact, "watch it: sends are refused when the disk is full")
    return ok("room", fact)


def sync_times(folder: Path, *, count: int = SYNCS, progress: Callable[[int, int], None] | None = None) -> list[float]:
    """Seconds of syncs as commits make them: 4 KiB over blocks that the disk has, then fdatasync. Sorted."""
    times = []
    with closing(tempfile.TemporaryFile(prefix=".doctor-", dir=folder, buffering=0)) as file:
        fd = file.fileno()
        os.write(fd, bytes(count * BLOCK_BYTES))
        os.fsync(fd)
        for index in range(count):
            started = time.perf_counter()
            os.pwrite(fd, os.urandom(BLOCK_BYTES), index * BLOCK_BYTES)
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)
            times.append(time.perf_counter() - started)
            if progress is not None:
                progress(index + 1, count)
    return sorted(times)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Of sorted values; 0 without any."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def judge_syncs(ordered: Sequence[float], kind: str) -> Line:
    p50, p99 = percentile(ordered, 0.5), percentile(ordered, 0.99)
    fact = f"4 KiB and fdatasync: p50 {p50 * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms, max {ordered[-1] * 1e3:.3f} ms"
    if p50 < HONEST_MIN_S and kind not in MEMORY:
        return warning(
            "sync",
            f"{fact}: no disk is that fast",
            "a layer below may not sync at all: a power cut would lose messages",
        )
    if p50 > SLOW_S:
        return warning("sync", f"{fact}: slow", f"one commit takes that long; {1 / p50:.0f} a second at most")
    return ok("sync", fact)
