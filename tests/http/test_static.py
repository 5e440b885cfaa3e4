"""The folder as a consumer: what is answered, to whom."""

from __future__ import annotations

import html.parser
import os
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin

import msgspec
import pytest

from headrace.http.exchange import Exchange
from headrace.http.fields import FieldInvalid
from headrace.http.static import StaticFiles
from headrace.http.static_files import ENTRIES_MAX, SMALL_BYTES_MAX
from headrace.http.static_types import content_type
from tests.http.fake_exchange import FakeExchange
from tests.http.static_support import OLD_S, SECRET, age, get, make_root, open_files, settled, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


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


def test_replaced_file_is_seen_by_the_next_request(root: Path) -> None:
    files = settled(StaticFiles(root))
    first = get(files, "/a.txt")
    assert get(files, "/a.txt").body == b"0123456789"
    write(root / "new", b"replaced!!")  # same size, same date
    (root / "new").replace(root / "a.txt")
    second = get(files, "/a.txt")
    assert second.body == b"replaced!!"
    assert second.answer[b"etag"] != first.answer[b"etag"]


def test_tags_are_of_the_content_or_of_the_version(root: Path) -> None:
    files = StaticFiles(root)
    for name, data in (("a.txt", b"0123456789"), ("big.bin", bytes(range(256)) * 1024)):
        first = get(files, f"/{name}").answer[b"etag"]
        assert first == get(StaticFiles(root), f"/{name}").answer[b"etag"]
        write(root / "copy", data)
        (root / "copy").replace(root / name)
        second = get(files, f"/{name}").answer[b"etag"]
        assert (first == second) is (name == "a.txt")  # the same bytes from another machine keep a small file's tag


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


def test_listing_of_sizes_and_dates_beyond_reason(root: Path) -> None:
    for size in (0, 999, 1_000, 1_234_567, 5 * 10**9):
        os.truncate(write(root / "sizes" / f"{size}", b""), size)
    age(root / "sizes/0", 1 << 33)
    page = get(StaticFiles(root, index=True), "/sizes/").body.decode()
    for size_text in ("0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB", "2242-03-16 12:56:32"):
        assert f"<td>{size_text}</td>" in page


def test_folder_that_may_not_be_read_is_403(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: str, name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("headrace.http.static_listing.open_beneath", refuse)
    assert get(StaticFiles(root, index=True), "/empty/").status == 403
