"""What is known of files: their headers, validators, packed variants, and the bodies of small ones.

Theory. Everything kept is a memory of what was at a name, and worth nothing unless the file is still the same one:
`find` asks the file system each time (one `stat`, 1.8 µs), so that a replaced file is seen by the very next request.
Sameness is inode, size, and both times to the nanosecond; since a file system may tick more slowly than that, a file
that changed within the last two seconds is served but not remembered. Whether packed siblings (`app.js.br`) have
appeared is asked once a second; one that is older than its original is left alone.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from email.utils import formatdate
from hashlib import blake2b
from typing import Final, TypeAlias

from headrace.http.codings import PACKED_BYTES_MIN, choose, is_packable
from headrace.http.fields import Fields
from headrace.http.static_conditions import Validators
from headrace.http.static_paths import open_beneath
from headrace.http.static_types import content_type

SMALL_BYTES_MAX: Final = 65_536  # kept in memory; beyond, reading costs less than the network's share anyway
CACHE_BYTES_MAX: Final = 32 * 1_048_576  # of one folder's small files
ENTRIES_MAX: Final = 4_096
SETTLED_NS: Final = 2_000_000_000  # FAT ticks every 2 s, old ext3 and HFS+ every second, Linux every 4 ms
LOOK_INTERVAL_S: Final = 1.0
SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

Identity: TypeAlias = tuple[int, int, int, int, int]
"""Modified, changed (ns), inode, size, device."""
Packer: TypeAlias = Callable[[bytes], bytes]


def identity_of(status: os.stat_result) -> Identity:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size, status.st_dev)


class FileChanged(OSError):
    """Between two looks at a file it has become another one."""


class Representation:
    """One file's content, plain or packed, with the headers that it is answered with. Immutable."""

    __slots__ = ("body", "fields", "identity", "kind", "name", "path", "size", "unchanged", "validators")

    def __init__(
        self,
        name: str,
        path: bytes,
        identity: Identity,
        *,
        kind: bytes,
        body: bytes | None,
        cache_control: bytes,
        coding: str = "",
    ) -> None:
        self.name = name
        self.path = path
        self.identity = identity
        self.kind = kind
        """Content-Type."""
        self.size = identity[3] if body is None else len(body)
        self.body = body
        """None for big files."""
        self.validators = _validators(identity, body, coding)
        common = (
            (b"ETag", self.validators.etag),
            (b"Last-Modified", self.validators.modified),
            (b"Cache-Control", cache_control),
            (b"Vary", b"Accept-Encoding"),
        )
        self.unchanged = Fields.of(common)
        """Of a 304."""
        self.fields = Fields.of(
            (
                (b"Content-Type", kind),
                (b"Content-Length", b"%d" % self.size),
                *common,
                (b"Content-Encoding", coding.encode()) if coding else (b"Accept-Ranges", b"bytes"),
                (b"X-Content-Type-Options", b"nosniff"),
            )
        )


def _validators(identity: Identity, body: bytes | None, coding: str) -> Validators:
    # A small file's tag is of its bytes: the same on every machine, and another one for every change, also where all
    # files carry one date (Nix, reproducible images). A big file's is of what two versions cannot share; hashed, since an
    # inode is nobody's business.
    modified_ns, _, inode, size, _ = identity
    seed = body if body is not None else b"%d-%d-%d" % (modified_ns, inode, size)
    tag = blake2b(seed, digest_size=12).hexdigest() + ("-" + coding if coding else "")
    modified_s = max(0, modified_ns // 1_000_000_000)
    return Validators(b'"%b"' % tag.encode(), formatdate(modified_s, usegmt=True).encode(), modified_s)


class _Entry:
    """What is at one name. `packed` is as good as `looked_s` is young."""

    __slots__ = ("codings", "looked_s", "packed", "plain", "weight")

    def __init__(self, plain: Representation) -> None:
        self.plain = plain
        self.packed: dict[str, Representation] = {}
        self.codings: tuple[str, ...] = ()
        self.looked_s = float("-inf")
        self.weight = _weight(plain)


class Files:
    """The files below one root. Bounded; not for several threads. Does not know exchanges.

    Invariant: `_bytes` is the sum of the entries' weights, at most CACHE_BYTES_MAX.
    """

    def __init__(
        self,
        root: str,
        *,
        cache_control: bytes,
        packers: Mapping[str, Packer],
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """See the module.

        Args:
            root: absolute.
            cache_control: of every answer.
            packers: by coding, the best first: pack small text that has no packed sibling, once a version.
        """
        self.root = root
        self._cache_control = cache_control
        self._packers = packers
        self._clock = clock
        self._wall_ns = wall_ns
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def find(self, name: str, accept_encoding: bytes | None) -> Representation:
        """The file at `name` as it is now, in the coding that the client likes best.

        Raises: OSError: FileNotFoundError, IsADirectoryError and others.
        """
        entry = self._entries.get(name)
        if entry is None:
            entry = self._load(name)
        else:
            plain = entry.plain
            # Spelled out: a call and a tuple would double what follows the `stat`.
            now = os.stat(plain.path)  # noqa: PTH116  # Path costs more than the request
            if (now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_size, now.st_dev) != plain.identity:
                self._forget(name)
                entry = self._load(name)
        if accept_encoding is not None:
            return self._in_coding(entry, accept_encoding)
        return entry.plain

    def open(self, file: Representation) -> int:
        """A descriptor of just this version of the file; the caller closes it.

        Raises: FileChanged: `find` it again. OSError.
        """
        handle, status = open_beneath(self.root, file.name)
        if identity_of(status) == file.identity:
            return handle
        os.close(handle)
        self._forget(file.name)
        raise FileChanged(errno.ESTALE, "the file was replaced", file.name)

    # Loading

    def _load(self, name: str) -> _Entry:
        plain, settled = self._read(name, kind=content_type(os.path.splitext(name)[1]))  # noqa: PTH122  # as above
        entry = _Entry(plain)
        if settled:
            self._entries[name] = entry
            self._bytes += entry.weight
            self._make_room()
        return entry

    def _read(self, name: str, *, kind: bytes, coding: str = "") -> tuple[Representation, bool]:
        """The representation, and whether it may be remembered."""
        handle, status = open_beneath(self.root, name)
        try:
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "a folder", name)
            before = identity_of(status)
            body = _read_small(handle, status.st_size)
            status = os.fstat(handle)
        finally:
            os.close(handle)
        path = os.fsencode(self.root + "/" + name)
        identity = identity_of(status)
        whole = identity == before and (body is None or len(body) == status.st_size)
        file = Representation(
            name, path, identity, kind=kind, body=body, cache_control=self._cache_control, coding=coding
        )
        return file, whole and abs(self._wall_ns() - status.st_ctime_ns) > SETTLED_NS

    def _make_room(self) -> None:
        while self._bytes > CACHE_BYTES_MAX or len(self._entries) > ENTRIES_MAX:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.weight

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._bytes -= entry.weight

    # Codings

    def _in_coding(self, entry: _Entry, accept_encoding: bytes) -> Representation:
        now_s = self._clock()
        if now_s - entry.looked_s >= LOOK_INTERVAL_S:
            self._look_for_packed(entry, now_s)
        coding = choose(accept_encoding, entry.codings)
        if not coding:
            return entry.plain
        packed = entry.packed.get(coding)
        if packed is None:
            return self._pack(entry, coding)
        if packed.path is not entry.plain.path and not _is_same(packed):
            self._look_for_packed(entry, now_s)
            coding = choose(accept_encoding, entry.codings)
            return entry.packed.get(coding, entry.plain)
        return packed

    def _look_for_packed(self, entry: _Entry, now_s: float) -> None:
        """Find the siblings; what has been packed here stays, unless a sibling has taken its place."""
        plain = entry.plain
        found = {coding: file for coding, file in entry.packed.items() if file.path is plain.path}
        settled = True
        for coding, suffix in SUFFIXES.items():
            try:
                file, is_settled = self._read(plain.name + suffix, kind=plain.kind, coding=coding)
            except OSError:
                continue  # no sibling, or none that may be read: the original does
            if file.identity[0] >= plain.identity[0]:
                found[coding] = file
                settled = settled and is_settled
        entry.packed = found
        entry.looked_s = now_s if settled else float("-inf")
        packable = self._packers if _is_packable(plain) else ()
        entry.codings = tuple(coding for coding in SUFFIXES if coding in found or coding in packable)
        self._weigh(entry)

    def _pack(self, entry: _Entry, coding: str) -> Representation:
        plain = entry.plain
        assert plain.body is not None, "only small files are packable"
        packed = Representation(
            plain.name,
            plain.path,
            plain.identity,
            kind=plain.kind,
            body=self._packers[coding](plain.body),
            cache_control=self._cache_control,
            coding=coding,
        )
        entry.packed[coding] = packed
        self._weigh(entry)
        return packed

    def _weigh(self, entry: _Entry) -> None:
        weight = _weight(entry.plain) + sum(map(_weight, entry.packed.values()))
        if self._entries.get(entry.plain.name) is entry:
            self._bytes += weight - entry.weight
        entry.weight = weight
        self._make_room()


def _read_small(handle: int, size: int) -> bytes | None:
    """The whole content, unless it is big. A byte more than there was is asked for: growth shows, too."""
    return os.pread(handle, size + 1, 0) if size <= SMALL_BYTES_MAX else None


def _is_same(file: Representation) -> bool:
    try:
        return identity_of(os.stat(file.path)) == file.identity  # noqa: PTH116
    except OSError:
        return False


def _is_packable(file: Representation) -> bool:
    return file.body is not None and file.size >= PACKED_BYTES_MIN and is_packable(file.kind)


def _weight(file: Representation) -> int:
    return 2_048 + (len(file.body) if file.body is not None else 0)  # the record and its headers take about 2 KiB
