"""From a request's path to an open file, and to nothing outside the root.

Theory. Two checks, each enough against its own kind of attack. `name_of` reads the path, once and strictly: what is not
plainly a name below the root is refused, so that nothing depends on how a file system understands `..`. `open_beneath`
opens and only then asks the kernel where the opened file really is: symbolic links are followed, but a file that lies
outside the root is not served, however the links are changed meanwhile: what was judged is what is read. The first
open is by O_PATH, which reads nothing and wakes no device and no pipe.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from headrace.errors import InvalidParameter

INDEX: Final = "index.html"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%2[Ff]|%00|%5[Cc]|\\")
_CACHED_PATH_CHARS_MAX: Final = 256  # 1,024 of them: what attackers put there stays below 1 MiB
_WELL_KNOWN: Final = b".well-known"  # RFC 8615: the one name with a dot that is meant for everybody
_PATH_ONLY: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_CLOEXEC


def name_of(path: str) -> str | None:
    """The name below the root that `path` (percent-encoded, from its `/`) means; a folder's is that of its index page.

    None: it names nothing that is served: escapes that are malformed or hide a separator or a NUL, backslashes, empty
    or dot segments, names that begin with a dot (except `/.well-known/`).
    """
    if len(path) > _CACHED_PATH_CHARS_MAX:
        return _name_of.__wrapped__(path)
    return _name_of(path)


@lru_cache(maxsize=1024)
def _name_of(path: str) -> str | None:
    if path[:1] != "/" or not path.isascii() or _BAD_ESCAPE.search(path):
        return None
    name = unquote_to_bytes(path[1:])
    *folders, last = name.split(b"/")
    if folders and folders[0] == _WELL_KNOWN:
        folders[0] = b"well-known"
    if not all(folders) or any(segment.startswith(b".") for segment in (*folders, last)):
        return None
    return os.fsdecode(name) if last else os.fsdecode(name) + INDEX


def open_beneath(root: str, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file or a folder for reading. The caller closes the descriptor.

    Args:
        root: a folder; may itself be a link, which is followed anew each time, as deployments switch it.
        name: from `name_of`, or a part of it; empty for the root.

    Raises: OSError; FileNotFoundError also for what is neither file nor folder, or lies outside.
    """
    base = os.open(root, _PATH_ONLY | os.O_DIRECTORY)
    try:
        handle = os.open(name or ".", _PATH_ONLY, dir_fd=base)
        try:
            status = os.fstat(handle)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) or not _lies_in(handle, base):
                raise FileNotFoundError(errno.ENOENT, "not a file or folder below the root", name)
            return _reopen(handle), status
        finally:
            os.close(handle)
    finally:
        os.close(base)


def _lies_in(handle: int, folder: int) -> bool:
    real, base = real_path(handle), real_path(folder)
    return real == base or real.startswith(base.rstrip("/") + "/")


if sys.platform == "darwin":
    import fcntl

    def real_path(handle: int) -> str:
        """Where an open file is, without links."""
        return os.fsdecode(fcntl.fcntl(handle, fcntl.F_GETPATH, b"\0" * 1024).rstrip(b"\0"))

    def _reopen(handle: int) -> int:
        return os.dup(handle)

else:

    def real_path(handle: int) -> str:
        """Where an open file is, without links."""
        return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115  # a Path costs more than the call

    def _reopen(handle: int) -> int:
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)


def check_root(root: str) -> None:
    """Raises: InvalidParameter: `root` is no readable folder, or the system cannot tell where an open file is."""
    try:
        handle, _ = open_beneath(root, "")
    except OSError as error:
        raise InvalidParameter("static", root, f"it cannot be served: {error.strerror or error}") from None
    os.close(handle)
