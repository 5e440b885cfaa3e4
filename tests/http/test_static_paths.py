"""What is never shown: no path, no link, no trick leads out of the root."""

from __future__ import annotations

import os
import random
import socket
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidParameter
from headrace.http.static import StaticFiles
from headrace.http.static_files import FileChanged
from headrace.http.static_paths import name_of, open_beneath, real_path
from tests.http.fake_exchange import FakeExchange
from tests.http.static_support import SECRET, get, make_root, settled, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


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


def test_file_that_is_replaced_all_the_time_is_503(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StaticFiles(root)

    def changed(file: object) -> int:
        raise FileChanged(116, "replaced")

    monkeypatch.setattr(files._files, "open", changed)
    assert get(files, "/big.bin").status == 503


def test_file_that_is_deleted_between_two_looks_is_404(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StaticFiles(root)

    def deleted(file: object) -> int:
        (root / "big.bin").unlink()
        raise FileChanged(116, "replaced")

    monkeypatch.setattr(files._files, "open", deleted)
    assert get(files, "/big.bin").status == 404


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
