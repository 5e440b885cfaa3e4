"""The folder as a consumer: what is answered, to whom, and what is never shown."""

from __future__ import annotations

import email
import gzip
import html.parser
import os
import random
import socket
import threading
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urljoin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidParameter
from headrace.http.exchange import Exchange
from headrace.http.fields import FieldInvalid
from headrace.http.static import StaticFiles
from headrace.http.static_files import ENTRIES_MAX, SMALL_BYTES_MAX
from headrace.http.static_paths import name_of, open_beneath, real_path
from headrace.http.static_types import content_type
from tests.http.fake_exchange import FakeExchange
from tests.http.support import on_loop

OLD_S = 1_700_000_000
SECRET = b"the secret outside"


def age(path: Path, seconds: int = OLD_S) -> Path:
    os.utime(path, (seconds, seconds))
    return path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def write(path: Path, data: bytes, seconds: int = OLD_S) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return age(path, seconds)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    write(folder / "index.html", b"<h1>home</h1>")
    write(folder / "a.txt", b"0123456789")
    write(folder / "docs/index.html", b"<h1>docs</h1>")
    write(folder / "docs/b.css", b"b{}")
    write(folder / "big.bin", bytes(range(256)) * 1024)
    write(folder / ".env", SECRET)
    write(folder / ".git/config", SECRET)
    write(folder / ".well-known/security.txt", b"Contact: us")
    (folder / "empty").mkdir()
    write(tmp_path / "secret.txt", SECRET)
    write(tmp_path / "root-sibling/secret.txt", SECRET)
    return folder


def get(
    files: StaticFiles,
    path: str,
    headers: Mapping[bytes, bytes] = {},
    *,
    method: str = "GET",
    root_path: str = "",
) -> FakeExchange:
    exchange = FakeExchange(path, headers, method=method)
    exchange.root_path = root_path
    files(exchange)
    assert exchange.done
    return exchange


# Whole files


def test_file_is_answered_with_its_type_validators_and_length(root: Path) -> None:
    answer = get(StaticFiles(root), "/a.txt")
    assert (answer.status, answer.body, answer.sent_bytes) == (200, b"0123456789", 10)
    etag = answer.answer.pop(b"etag")
    assert etag.startswith(b'"') and etag.endswith(b'"')
    assert answer.answer == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"10",
        b"etag": etag,
        b"last-modified": formatdate(OLD_S, usegmt=True).encode(),
        b"cache-control": b"no-cache",
        b"vary": b"Accept-Encoding",
        b"accept-ranges": b"bytes",
        b"x-content-type-options": b"nosniff",
    }


@pytest.mark.parametrize("path", ["/a.txt", "/big.bin"])
def test_head_has_the_headers_of_get_and_no_body(root: Path, path: str) -> None:
    files = StaticFiles(root)
    full, head = get(files, path), get(files, path, method="HEAD")
    assert (head.status, head.body, head.answer) == (200, b"", full.answer)


def test_big_file_is_sent_from_its_descriptor_and_closes_it(root: Path) -> None:
    before = open_files()
    answer = get(StaticFiles(root), "/big.bin")
    assert answer.body == bytes(range(256)) * 1024
    assert answer.sent_bytes == answer.shown_length == 262_144
    assert open_files() == before


def test_big_file_waits_for_the_client(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.http.static_sending.PIECE_BYTES", 100_000)
    exchange = FakeExchange("/big.bin", room=1)
    StaticFiles(root)(exchange)
    assert [len(piece) for piece in exchange.sends] == [100_000]
    exchange.take_more(1)
    assert not exchange.done
    exchange.take_more(1)
    assert exchange.done and exchange.body == bytes(range(256)) * 1024


def test_file_cut_while_it_is_sent_aborts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.http.static_sending.PIECE_BYTES", 100_000)
    exchange = FakeExchange("/big.bin", room=1)
    StaticFiles(root)(exchange)
    os.truncate(root / "big.bin", 150_000)
    exchange.take_more(1)
    assert exchange.gone and not exchange.done and len(exchange.body) == 100_000


def test_file_that_grows_while_it_is_sent_is_sent_as_announced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.http.static_sending.PIECE_BYTES", 100_000)
    exchange = FakeExchange("/big.bin", room=1)
    StaticFiles(root)(exchange)
    with (root / "big.bin").open("ab") as file:
        file.write(b"more" * 10_000)
    exchange.take_more(9)
    assert exchange.done and len(exchange.body) == 262_144


def test_client_that_leaves_closes_the_file(root: Path) -> None:
    before = open_files()
    exchange = FakeExchange("/big.bin", room=0)
    StaticFiles(root)(exchange)
    assert open_files() == before + 1
    exchange.lost()
    assert open_files() == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get"])
def test_other_methods_are_refused(root: Path, method: str) -> None:
    answer = get(StaticFiles(root), "/a.txt", method=method)
    assert (answer.status, answer.answer[b"allow"]) == (405, b"GET, HEAD, OPTIONS")


def test_options_tells_the_methods(root: Path) -> None:
    answer = get(StaticFiles(root), "/a.txt", method="OPTIONS")
    assert (answer.status, answer.answer) == (204, {b"allow": b"GET, HEAD, OPTIONS"})


def test_cache_control_is_as_given_and_checked(root: Path) -> None:
    answer = get(StaticFiles(root, cache_control="max-age=31536000, immutable"), "/a.txt")
    assert answer.answer[b"cache-control"] == b"max-age=31536000, immutable"
    with pytest.raises(FieldInvalid):
        StaticFiles(root, cache_control="a\r\nb: c")


def test_errors_are_answered_as_told(root: Path) -> None:
    told: list[tuple[int, str]] = []

    def on_error(
        exchange: Exchange, status: int, detail: str, /, *, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        told.append((status, detail))

    StaticFiles(root, on_error=on_error)(FakeExchange("/none"))
    assert told == [(404, "there is no such file")]


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".html", b"text/html; charset=utf-8"),
        (".JS", b"text/javascript; charset=utf-8"),
        (".mjs", b"text/javascript; charset=utf-8"),
        (".css", b"text/css; charset=utf-8"),
        (".wasm", b"application/wasm"),
        (".webp", b"image/webp"),
        (".avif", b"image/avif"),
        (".woff2", b"font/woff2"),
        (".json", b"application/json"),
        (".map", b"application/json"),
        (".svg", b"image/svg+xml"),
        (".gz", b"application/gzip"),
        (".zst", b"application/zstd"),
        (".br", b"application/octet-stream"),
        ("", b"application/octet-stream"),
        (".unheard", b"application/octet-stream"),
        ("." + "x" * 300, b"application/octet-stream"),
    ],
)
def test_content_types(suffix: str, expected: bytes) -> None:
    assert content_type(suffix) == expected


# Freshness


def settled(files: StaticFiles) -> StaticFiles:
    """Lets every file be old enough to be remembered."""
    files._files._wall_ns = lambda: 1 << 62
    return files


def test_replaced_file_is_seen_by_the_next_request(root: Path) -> None:
    files = settled(StaticFiles(root))
    first = get(files, "/a.txt")
    assert get(files, "/a.txt").body == b"0123456789"
    write(root / "new", b"replaced!!")  # same size, same date
    (root / "new").replace(root / "a.txt")
    second = get(files, "/a.txt")
    assert second.body == b"replaced!!"
    assert second.answer[b"etag"] != first.answer[b"etag"]


def test_overwritten_and_deleted_files_are_seen_by_the_next_request(root: Path) -> None:
    files = settled(StaticFiles(root))
    get(files, "/a.txt")
    write(root / "a.txt", b"longer than before")
    assert get(files, "/a.txt").body == b"longer than before"
    (root / "a.txt").unlink()
    assert get(files, "/a.txt").status == 404
    write(root / "a.txt", b"again")
    assert get(files, "/a.txt").body == b"again"


def test_file_that_has_just_changed_is_not_remembered(root: Path) -> None:
    files = StaticFiles(root)
    get(files, "/a.txt")
    assert files._files._entries == {}
    get(settled(files), "/a.txt")
    assert list(files._files._entries) == ["a.txt"]


def test_switched_root_link_is_followed(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "release2/a.txt", b"second release")
    (tmp_path / "current").symlink_to("root")
    files = settled(StaticFiles(tmp_path / "current"))
    assert get(files, "/a.txt").body == b"0123456789"
    (tmp_path / "next").symlink_to("release2")
    (tmp_path / "next").replace(tmp_path / "current")
    assert get(files, "/a.txt").body == b"second release"
    assert get(files, "/big.bin").status == 404


def test_link_that_is_turned_outwards_stops_serving(root: Path, tmp_path: Path) -> None:
    (root / "link.txt").symlink_to("a.txt")
    files = settled(StaticFiles(root))
    assert get(files, "/link.txt").body == b"0123456789"
    (root / "next").symlink_to(tmp_path / "secret.txt")
    (root / "next").replace(root / "link.txt")
    assert get(files, "/link.txt").status == 404


def test_memory_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.http.static_files.CACHE_BYTES_MAX", 300_000)
    files = settled(StaticFiles(root))
    for number in range(20):
        write(root / f"f{number}.txt", b"x" * SMALL_BYTES_MAX)
        assert get(files, f"/f{number}.txt").status == 200
        kept = files._files._entries.values()
        assert files._files._bytes == sum(entry.weight for entry in kept) <= 300_000
    assert len(files._files._entries) == 4 < ENTRIES_MAX


def test_spellings_of_one_name_share_its_memory(root: Path) -> None:
    files = settled(StaticFiles(root))
    assert get(files, "/%61.txt").body == get(files, "/a%2etxt").body == b"0123456789"
    assert list(files._files._entries) == ["a.txt"]


# Folders


def test_folder_has_its_index_page(root: Path) -> None:
    files = StaticFiles(root)
    assert get(files, "/").body == b"<h1>home</h1>"
    assert get(files, "/docs/").body == b"<h1>docs</h1>"
    assert get(files, "/docs/index.html").body == b"<h1>docs</h1>"
    assert get(files, "/empty/").status == 404


@pytest.mark.parametrize(
    ("url", "root_path", "expected"),
    [
        ("/docs", "", "http://h/docs/"),
        ("/docs?q=1&r=//x", "", "http://h/docs/?q=1&r=//x"),
        ("/d%6Fcs", "/mount", "http://h/mount/d%6Fcs/"),
        ("", "/mount", "http://h/mount/"),
        ("", "/evil/mount", "http://h/evil/mount/"),
    ],
)
def test_folder_without_slash_redirects_on_the_same_host(root: Path, url: str, root_path: str, expected: str) -> None:
    answer = get(StaticFiles(root), url, root_path=root_path)
    assert answer.status == 301
    location = answer.answer[b"location"].decode()
    assert urljoin(f"http://h{root_path}{url}", location) == expected
    assert location.startswith("./")


def test_folder_named_like_a_scheme_or_host_redirects_to_itself(root: Path) -> None:
    (root / "javascript:alert(1)").mkdir()
    answer = get(StaticFiles(root), "/javascript:alert(1)")
    assert answer.answer[b"location"] == b"./javascript:alert(1)/"
    for path in ("//evil.example", "//evil.example/", "/\\evil.example", "/%2f%2fevil.example", "/%5Cevil.example"):
        assert get(StaticFiles(root), path).status == 404


def test_index_page_that_is_a_folder_is_none(root: Path) -> None:
    (root / "empty/index.html").mkdir()
    assert get(StaticFiles(root), "/empty/").status == 404


class Links(html.parser.HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.tags: set[str] = set()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.hrefs += [value or "" for key, value in attrs if key == "href"]


def test_listing_is_off_unless_wished(root: Path) -> None:
    assert get(StaticFiles(root), "/empty/").status == 404
    assert get(StaticFiles(root, index=True), "/empty/").status == 200
    assert get(StaticFiles(root, index=True), "/none/").status == 404
    assert get(StaticFiles(root, index=True), "/a.txt/").status == 404
    assert get(StaticFiles(root, index=True), "/empty/index.html").status == 404


def test_listing_links_lead_to_what_is_served(root: Path, tmp_path: Path) -> None:
    names = ["<script>alert(1)<", "a b&c.txt", "100%.txt", "ünï.txt", "x:y.txt", "?q#f", "-.txt", '"quote".txt']
    for name in names:
        write(root / "list" / name, b"content of " + name.encode())
    write(root / "list" / ".hidden", SECRET)
    (root / "list/sub").mkdir()
    (root / "list/out").symlink_to(tmp_path / "secret.txt")
    (root / "list/in").symlink_to("../a.txt")
    os.mkfifo(root / "list/pipe")
    files = StaticFiles(root, index=True)
    page = get(files, "/list/")
    links = Links(page.body)
    assert "script" not in links.tags
    assert links.hrefs[:2] == ["../", "./sub/"]
    found = {unquote_to_bytes(link[2:]).decode() for link in links.hrefs[2:]}
    assert found == {*names, "in"}
    for link in links.hrefs[2:]:
        path = urljoin("http://h/list/", link).removeprefix("http://h")
        assert get(files, path).status == 200
    assert b"hidden" not in page.body and b"secret" not in page.body


def test_listing_as_json(root: Path) -> None:
    (root / "docs/index.html").unlink()
    answer = get(StaticFiles(root, index=True), "/docs/", {b"accept": b"application/json"})
    assert answer.answer[b"content-type"] == b"application/json" and answer.answer[b"vary"] == b"Accept"
    assert msgspec.json.decode(answer.body) == {
        "entries": [{"name": "b.css", "type": "file", "size": 3, "modified": "2023-11-14T22:13:20Z"}],
        "more": False,
    }


def test_listing_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.http.static_listing.LISTED_MAX", 5)
    for number in range(9):
        write(root / "many" / f"{number}.txt", b"", seconds=0 if number else 1 << 40)
    answer = get(StaticFiles(root, index=True), "/many/")
    assert len(Links(answer.body).hrefs) == 6 and b"has more" in answer.body


def test_names_that_are_no_unicode_are_served_and_listed(root: Path) -> None:
    raw = os.fsencode(root) + b"/list/\xff\xfe.txt"
    (root / "list").mkdir()
    Path(os.fsdecode(raw)).write_bytes(b"odd")
    files = StaticFiles(root, index=True)
    assert get(files, "/list/%FF%FE.txt").body == b"odd"
    assert "./%FF%FE.txt" in Links(get(files, "/list/").body).hrefs
    assert get(files, "/list/", {b"accept": b"application/json"}).status == 200


# No way out


@pytest.mark.parametrize(
    "path",
    [
        "/.env", "/.git/config", "/docs/.x", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt",
        "/docs/../../secret.txt", "/docs/%2e%2e/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/..%5csecret.txt",
        "/%252e%252e/secret.txt", "/a.txt%00", "/a.txt%00.html", "/a%00", "//a.txt", "/docs//b.css", "/./a.txt",
        "/docs/./b.css", "/%", "/%4", "/%zz", "/a.txt/", "/a.txt/x", "/docs\\b.css", "/%2ea.txt", "/.well-known",
        "/.well-known/../.env", "/.well-known/.x", "/docs/.well-known/x", "a.txt", "*", "/é.txt", "/" + "a" * 300,
        "/" + "a/" * 5000, "/root-sibling/secret.txt", "/..", "/../root-sibling/secret.txt", "/\ud800",
    ],
)  # fmt: skip
def test_path_that_names_nothing_served_is_404(root: Path, path: str) -> None:
    answer = get(StaticFiles(root), path)
    assert answer.status == 404 and SECRET not in answer.body


def test_well_known_is_served(root: Path) -> None:
    assert get(StaticFiles(root), "/.well-known/security.txt").body == b"Contact: us"


def test_links_are_followed_within_the_root_only(root: Path, tmp_path: Path) -> None:
    outside = {
        "out": tmp_path / "secret.txt",
        "out-relative": Path("../secret.txt"),
        "out-folder": tmp_path,
        "sibling": tmp_path / "root-sibling",
        "passwd": Path("/etc/passwd"),
        "proc": Path("/proc/self/environ"),
        "zero": Path("/dev/zero"),
        "loop": Path("loop"),
        "dead": Path("nowhere"),
    }
    for name, target in outside.items():
        (root / name).symlink_to(target)
    files = StaticFiles(root, index=True)
    for name in outside:
        assert get(files, f"/{name}").status == 404
        assert get(files, f"/{name}/").status == 404
        assert get(files, f"/{name}/secret.txt").status == 404
    (root / "within").symlink_to("docs")
    (root / "absolute").symlink_to(root / "docs")
    (root / "chain").symlink_to("within/b.css")
    assert get(files, "/within/b.css").body == get(files, "/absolute/b.css").body == get(files, "/chain").body == b"b{}"


def test_mounted_config_maps_work(root: Path) -> None:
    """Kubernetes: names are links through a folder with dots."""
    write(root / "..2026_01/app.js", b"1")
    (root / "..data").symlink_to("..2026_01")
    (root / "app.js").symlink_to("..data/app.js")
    assert get(StaticFiles(root), "/app.js").body == b"1"
    assert get(StaticFiles(root), "/..data/app.js").status == 404


def test_pipes_and_sockets_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "socket"))
        files = StaticFiles(root)
        assert get(files, "/pipe").status == get(files, "/socket").status == 404


def test_file_without_permission_is_403(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: str, name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("headrace.http.static_files.open_beneath", refuse)
    assert get(StaticFiles(root), "/a.txt").status == 403


def test_failing_disk_is_503_and_logged(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(root: str, name: str) -> None:
        raise OSError(24, "Too many open files")

    files = StaticFiles(root)
    monkeypatch.setattr("headrace.http.static_files.open_beneath", fail)
    answer = get(files, "/a.txt")
    assert (answer.status, answer.answer[b"retry-after"]) == (503, b"1")
    assert "Too many open files" in caplog.text


def test_file_replaced_between_two_looks_is_answered_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StaticFiles(root)
    original = files._files.open
    replaced: list[int] = []

    def replace_first(file: object) -> int:
        if not replaced:
            replaced.append(1)
            write(root / "new", b"n" * 100_000)
            (root / "new").replace(root / "big.bin")
        return original(file)  # type: ignore[arg-type]  # whatever it is

    monkeypatch.setattr(files._files, "open", replace_first)
    answer = get(files, "/big.bin")
    assert answer.body == b"n" * 100_000 and answer.answer[b"content-length"] == b"100000"


def test_root_must_be_a_folder(root: Path) -> None:
    for wrong in (root / "none", root / "a.txt"):
        with pytest.raises(InvalidParameter):
            StaticFiles(wrong)


SEGMENTS = [
    "..", ".", "", "a.txt", "docs", "secret.txt", "root", "root-sibling", ".env", ".git", "config", "out", "way",
    "etc", "passwd", "proc", "self", "index.html", "...", "..;", "~", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%c0%ae%c0%ae",
    "..%2f", "%2f", "%5c", "..\\", "%00", "%0a", "..%00", "..%c0%af", "%u002e", "．．", "..%09", "%e0%80%ae", "a.txt%00", "file:",
]  # fmt: skip


def test_ten_thousand_mutated_paths_leak_nothing(root: Path, tmp_path: Path) -> None:
    """Whatever is answered with 200 is a file of the root that no dot hides."""
    (root / "out").symlink_to(tmp_path)
    (root / "way").symlink_to("out/../secret.txt")
    allowed = {b"<h1>home</h1>", b"<h1>docs</h1>", b"0123456789", b"b{}", b"Contact: us", bytes(range(256)) * 1024}
    files = StaticFiles(root)
    rng = random.Random(20261124)
    statuses: dict[int, int] = {}
    for _ in range(10_000):
        exchange = FakeExchange(mutate(rng, tmp_path), {b"range": b"bytes=0-"} if rng.random() < 0.2 else {})
        files(exchange)
        statuses[exchange.status] = statuses.get(exchange.status, 0) + 1
        assert exchange.done and SECRET not in exchange.body and b"root:" not in exchange.body, exchange.path
        if exchange.status in (200, 206):
            assert exchange.body in allowed, exchange.path
    assert set(statuses) <= {200, 206, 301, 404} and statuses[200] > 100


def mutate(rng: random.Random, outside: Path) -> str:
    segments = SEGMENTS if rng.random() < 0.5 else ["docs", "a.txt", "out", "way", "secret.txt", "b.css", "root", ""]
    path = "/".join(["", *rng.choices(segments, k=rng.randint(1, 6))])
    if rng.random() < 0.1:
        path = rng.choice(
            [f"/{outside}/secret.txt", f"//{outside}/secret.txt", quote(f"/{outside}/secret.txt", safe="")]
        )
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randint(1, len(path))
        path = path[:at] + rng.choice(["/", ".", "..", "%2f", "%2e", "\\", "%", "%25", "\x7f", "%ff"]) + path[at:]
    if rng.random() < 0.1:
        path = "".join(f"%{ord(c):02x}" if c != "/" and ord(c) < 128 and rng.random() < 0.5 else c for c in path)
    return path


def test_ten_thousand_names_that_climb_open_nothing_outside(root: Path, tmp_path: Path) -> None:
    """The second lock alone: as if paths were not read at all."""
    (root / "out").symlink_to(tmp_path)
    (root / "way").symlink_to("out/../secret.txt")
    rng = random.Random(7)
    names = [
        "..",
        ".",
        "docs",
        "out",
        "way",
        "secret.txt",
        "root",
        "a.txt",
        "b.css",
        "root-sibling",
        tmp_path.name,
        "/etc",
    ]
    opened = 0
    for _ in range(10_000):
        name = "/".join(rng.choices(names, k=rng.randint(1, 6)))
        try:
            handle, _status = open_beneath(str(root), name)
        except OSError:
            continue
        opened += 1
        real = Path(real_path(handle))
        os.close(handle)
        assert real.is_relative_to(root), name
    assert opened > 500


def test_link_that_is_turned_all_the_time_leaks_nothing(root: Path, tmp_path: Path) -> None:
    files = settled(StaticFiles(root))
    turning = True

    def turn() -> None:
        while turning:
            for target in ("../secret.txt", "a.txt"):
                (root / "next").symlink_to(target)
                (root / "next").replace(root / "link.txt")

    turner = threading.Thread(target=turn)
    turner.start()
    try:
        bodies = {get(files, "/link.txt").body for _ in range(3_000)}
    finally:
        turning = False
        turner.join()
    assert b"0123456789" in bodies
    assert not any(SECRET in body for body in bodies)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_names_never_climb(path: str) -> None:
    name = name_of(path)
    if name is not None:
        assert "\0" not in name and "\\" not in name and not name.startswith("/")
        segments = name.split("/")
        assert all(segments) and not any(s.startswith(".") for s in segments[1:])
        assert not segments[0].startswith(".") or segments[0] == ".well-known"


# Conditions and ranges through the whole (their rules: test_static_conditions.py)


def test_unchanged_file_is_304_with_its_validators(root: Path) -> None:
    files = StaticFiles(root)
    full = get(files, "/a.txt")
    for headers in (
        {b"if-none-match": full.answer[b"etag"]},
        {b"if-none-match": b'W/"x", W/' + full.answer[b"etag"]},
        {b"if-modified-since": full.answer[b"last-modified"]},
    ):
        answer = get(files, "/a.txt", headers)
        assert (answer.status, answer.body) == (304, b"")
        assert set(answer.answer) == {b"etag", b"last-modified", b"cache-control", b"vary"}
    assert get(files, "/a.txt", {b"if-match": b'"other"'}).status == 412


@pytest.mark.parametrize("size", [1_000, SMALL_BYTES_MAX + 1_000])
def test_range_of_small_and_big_files(root: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    write(root / "data.bin", data)
    files = StaticFiles(root)
    answer = get(files, "/data.bin", {b"range": b"bytes=100-299"})
    assert (answer.status, answer.body, answer.sent_bytes) == (206, data[100:300], 200)
    assert answer.answer[b"content-range"] == b"bytes 100-299/%d" % size
    assert answer.answer[b"content-length"] == b"200"
    assert get(files, "/data.bin", {b"range": b"bytes=-5"}).body == data[-5:]
    assert get(files, "/data.bin", {b"range": b"bytes=900-"}).body == data[900:]
    assert get(files, "/data.bin", {b"range": b"bytes=0-"}).status == 206
    assert get(files, "/data.bin", {b"range": b"bytes=5-1"}).status == 200
    head = get(files, "/data.bin", {b"range": b"bytes=0-1"}, method="HEAD")
    assert (head.status, head.answer[b"content-length"]) == (200, b"%d" % size)


def test_range_beyond_the_end_is_416(root: Path) -> None:
    answer = get(StaticFiles(root), "/a.txt", {b"range": b"bytes=10-"})
    assert (answer.status, answer.answer[b"content-range"]) == (416, b"bytes */10")


@pytest.mark.parametrize("path", ["/a.txt", "/big.bin"])
def test_several_ranges_are_a_multipart_message(root: Path, path: str) -> None:
    data = (root / path[1:]).read_bytes()
    answer = get(StaticFiles(root), path, {b"range": b"bytes=0-1, 4-6, -2"})
    assert answer.status == 206
    assert answer.shown_length == len(answer.body)
    message = email.message_from_bytes(b"Content-Type: " + answer.answer[b"content-type"] + b"\r\n" + answer.body)
    assert message.is_multipart()
    found = [(part["content-range"], part.get_payload(decode=True)) for part in message.walk() if part is not message]
    size = len(data)
    assert found == [
        (f"bytes 0-1/{size}", data[:2]),
        (f"bytes 4-6/{size}", data[4:7]),
        (f"bytes {size - 2}-{size - 1}/{size}", data[-2:]),
    ]


def test_if_range_with_an_old_tag_answers_the_whole_file(root: Path) -> None:
    files = StaticFiles(root)
    etag = get(files, "/a.txt").answer[b"etag"]
    headers = {b"range": b"bytes=0-1", b"if-range": etag}
    assert get(files, "/a.txt", headers).body == b"01"
    write(root / "a.txt", b"abcdefghij", seconds=OLD_S + 1)
    answer = get(files, "/a.txt", headers)
    assert (answer.status, answer.body) == (200, b"abcdefghij")


# Packed siblings

ALL = {b"accept-encoding": b"gzip, deflate, br, zstd"}


def test_sibling_is_chosen_by_the_clients_weights(root: Path) -> None:
    for suffix in (".gz", ".br", ".zst"):
        write(root / f"a.txt{suffix}", b"packed" + suffix.encode())
    files = StaticFiles(root)
    plain = get(files, "/a.txt")
    assert (plain.body, plain.answer[b"vary"]) == (b"0123456789", b"Accept-Encoding")
    tags = {plain.answer[b"etag"]}
    for accept, coding, body in (
        (b"gzip, deflate, br, zstd", b"br", b"packed.br"),
        (b"gzip", b"gzip", b"packed.gz"),
        (b"br;q=0.1, zstd;q=0.9", b"zstd", b"packed.zst"),
        (b"*;q=0.5, br;q=0", b"zstd", b"packed.zst"),
    ):
        answer = get(files, "/a.txt", {b"accept-encoding": accept})
        assert (answer.body, answer.answer[b"content-encoding"]) == (body, coding)
        assert answer.answer[b"content-type"] == b"text/plain; charset=utf-8"
        assert b"accept-ranges" not in answer.answer
        tags.add(answer.answer[b"etag"])
        again = get(files, "/a.txt", {b"accept-encoding": accept, b"if-none-match": answer.answer[b"etag"]})
        assert again.status == 304
    assert len(tags) == 4
    assert get(files, "/a.txt", {b"accept-encoding": b"identity, gzip;q=0.5"}).body == b"0123456789"
    assert get(files, "/a.txt", {**ALL, b"range": b"bytes=0-1"}).body == b"01"


def test_sibling_older_than_its_original_is_not_used(root: Path) -> None:
    write(root / "a.txt.gz", b"stale", seconds=OLD_S - 1)
    files = StaticFiles(root)
    assert get(files, "/a.txt", ALL).body == b"0123456789"


def test_replaced_original_stops_its_sibling_at_once(root: Path) -> None:
    write(root / "a.txt.br", b"packed")
    files = settled(StaticFiles(root))
    assert get(files, "/a.txt", ALL).body == b"packed"
    assert get(files, "/a.txt", ALL).body == b"packed"
    write(root / "a.txt", b"new", seconds=OLD_S + 5)
    assert get(files, "/a.txt", ALL).body == b"new"
    write(root / "a.txt.br", b"new packed", seconds=OLD_S + 5)
    files._files._clock = lambda: 1e12  # a second has passed
    assert get(files, "/a.txt", ALL).body == b"new packed"
    write(root / "a.txt.br", b"newer packed", seconds=OLD_S + 6)
    assert get(files, "/a.txt", ALL).body == b"newer packed"
    (root / "a.txt.br").unlink()
    assert get(files, "/a.txt", ALL).body == b"new"


def test_sibling_that_leads_out_is_not_used(root: Path, tmp_path: Path) -> None:
    (root / "a.txt.gz").symlink_to(age(tmp_path / "secret.txt", OLD_S + 9))
    (root / "a.txt.br").mkdir()
    assert get(StaticFiles(root), "/a.txt", ALL).body == b"0123456789"


def test_big_sibling_is_sent_from_its_descriptor(root: Path) -> None:
    write(root / "big.bin.zst", b"z" * 100_000)
    answer = get(StaticFiles(root), "/big.bin", ALL)
    assert (answer.body, answer.answer[b"content-encoding"]) == (b"z" * 100_000, b"zstd")


def test_small_text_is_packed_once_and_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def shout(body: bytes) -> bytes:
        calls.append(len(body))
        return b"PACKED"

    write(root / "long.css", b"a{color:red}" * 200)
    write(root / "photo.jpg", b"a{color:red}" * 200)
    monkeypatch.setattr("headrace.http.static.packers", lambda: {"gzip": shout})
    files = settled(StaticFiles(root, compress=True))
    for _ in range(3):
        answer = get(files, "/long.css", ALL)
        assert (answer.body, answer.answer[b"content-encoding"]) == (b"PACKED", b"gzip")
        assert answer.answer[b"etag"].startswith(b'W/"')
    assert calls == [2400]
    for path in ("/photo.jpg", "/a.txt"):
        assert b"content-encoding" not in get(files, path, ALL).answer
    kept = files._files._entries.values()
    assert files._files._bytes == sum(entry.weight for entry in kept)
    write(root / "long.css", b"b{color:red}" * 300)
    get(files, "/long.css", ALL)
    assert calls == [2400, 3600]


@on_loop
async def test_big_text_is_packed_as_it_is_sent(root: Path) -> None:
    data = b"a long line of text, " * 20_000
    write(root / "big.txt", data)
    files = StaticFiles(root, compress=True)
    exchange = FakeExchange("/big.txt", {b"accept-encoding": b"gzip"})
    files(exchange)
    await exchange.wait_done()
    assert gzip.decompress(exchange.body) == data
    assert exchange.answer[b"etag"].startswith(b'W/"') and b"content-length" not in exchange.answer
    again = get(files, "/big.txt", {b"accept-encoding": b"gzip", b"if-none-match": exchange.answer[b"etag"]})
    assert again.status == 304
    assert get(files, "/big.txt", {b"accept-encoding": b"gzip", b"range": b"bytes=0-5"}).body == data[:6]
    head = get(files, "/big.txt", {b"accept-encoding": b"gzip"}, method="HEAD")
    assert head.body == b"" and head.block.block == exchange.block.block
