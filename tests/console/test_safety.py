"""What keeps others out: policy, tokens, guard, sign-in, read-only, hidden bodies; and no page that depends on what it must not."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import headrace.console
from headrace.console import access, limits
from headrace.console.addresses import local_place
from headrace.console.messages import HIDDEN
from headrace.console.responses import POLICY
from headrace.console_settings import ConsoleSettings, check
from headrace.native.client import Client
from headrace.settings import SettingsError
from tests.broker_process import BrokerProcess
from tests.console.serving import Browser, Served, serving
from tests.patience import PATIENCE_S

PACKAGE = Path(headrace.console.__file__).parent
TEMPLATES = sorted((PACKAGE / "templates").glob("*.html"))
PASSWORD = "correct horse battery staple"


# --- what is served ---


def test_each_vendored_file_is_the_one_that_was_written_down() -> None:
    folder = PACKAGE / "static" / "vendor"
    files = tomllib.loads((folder / "VENDORED.toml").read_text())["files"]
    for entry in files:
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]
        assert (folder / entry["licence_file"]).read_text().strip()
    named = {entry["file"] for entry in files} | {entry["licence_file"] for entry in files} | {"VENDORED.toml"}
    assert {path.name for path in folder.iterdir()} == named


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_what_the_policy_forbids(template: Path) -> None:
    text = template.read_text()
    assert re.findall(r"\sstyle=|\son[a-z]+=|<style|javascript:|https?://", text) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert "|safe" not in text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_each_form_that_posts_has_a_token(template: Path) -> None:
    forms = re.findall(r'<form method="post".*?</form>', template.read_text(), re.DOTALL)
    assert [form for form in forms if 'name="token" value="{{ token }}"' not in form] == []


@pytest.mark.parametrize("path", ["/", "/queues", "/queues/none", "/api/", "/static/console.css", "/health/live"])
def test_every_answer_has_the_strict_headers(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.headers["content-security-policy"] == POLICY.decode()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("no-store" in answer.headers["cache-control"]) == ("/static/" not in path)


def test_policy_allows_nothing_inline_or_evaluated() -> None:
    assert b"unsafe" not in POLICY and POLICY.startswith(b"default-src 'none'")


def test_static_files_are_kept_by_browsers_and_no_other_file_is_served(browser: Browser) -> None:
    [address] = re.findall(r'href="(/static/console\.css\?v=[0-9a-f]+)"', browser.get("/").text)
    assert "immutable" in browser.get(address).headers["cache-control"]
    for path in ("/static/../server.py", "/static/..%2Fserver.py", "/static/vendor/VENDORED.toml", "/static/"):
        assert browser.get(path).status == 404


# --- forms ---


@pytest.fixture
def purgeable(client: Client, served: Served) -> str:
    client.queue("kept", create=True).send("precious")
    served.look()
    return "/queues/kept/purge"


@pytest.mark.parametrize("token", ["", "0" * 64, "ü"], ids=["none", "wrong", "no hex"])
def test_a_form_without_its_token_does_nothing(browser: Browser, client: Client, purgeable: str, token: str) -> None:
    browser.get("/")
    browser.token = token
    assert browser.post(purgeable, {"name": "kept"}).status == 403
    assert client.queue("kept").counts().visible


def test_a_token_of_another_browser_does_not_fit(
    served: Served, browser: Browser, client: Client, purgeable: str
) -> None:
    other = served.browser()
    other.get("/")
    browser.get("/")
    browser.token = other.token
    assert browser.post(purgeable, {"name": "kept"}).status == 403
    assert client.queue("kept").counts().visible


def test_a_form_is_no_get(browser: Browser, purgeable: str) -> None:
    browser.get("/")
    assert browser.get(f"{purgeable}?name=kept&token={browser.token}").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=lambda headers: "=".join(next(iter(headers.items()))),
)
def test_pages_of_other_sites_reach_nothing(
    browser: Browser, client: Client, purgeable: str, headers: dict[str, str]
) -> None:
    browser.get("/")
    assert browser.post(purgeable, {"name": "kept"}, **headers).status == 403
    assert browser.get("/api/", **headers).status == 403
    assert client.queue("kept").counts().visible


def test_a_link_of_another_site_leads_to_a_page_that_goes_on_by_itself(browser: Browser) -> None:
    how = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    answer = browser.get("/queues", **how)
    assert answer.status == 200 and 'http-equiv="refresh"' in answer.text
    assert "set-cookie" not in answer.headers and "token" not in answer.text
    assert browser.get("/queues", **{**how, "Sec_Fetch_Dest": "iframe"}).status == 403


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nX: y", ""]
)
def test_a_form_leads_nowhere_else(place: str) -> None:
    assert local_place(place) == "/"


def test_a_form_that_is_none_is_refused(browser: Browser) -> None:
    browser.get("/")
    assert browser.ask("POST", "/queues/kept/purge", b"\xff\xfe", {}).status == 400
    assert browser.ask("POST", "/queues/kept/purge", b"&a=1" * 5_000, {}).status == 400
    assert browser.ask("PUT", "/queues/kept", b"", {}).status == 405


# --- who ---


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.toml"
    hashed = access.hash_password(PASSWORD)
    lines = [f'[[users]]\nname = "{name}"\npassword = "{hashed}"\n' for name in ("anna", "reader")]
    path.write_text("".join(lines) + "read_only = true\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(node: BrokerProcess, users: Path) -> Iterator[Served]:
    with serving(broker=node.url, users=users) as one:
        yield one


def sign_in(served: Served, name: str, password: str = PASSWORD) -> Browser:
    served.console._site._authenticator.attempts._all.clear()
    browser = served.browser()
    browser.get("/sign-in")
    browser.post("/sign-in", {"name": name, "password": password, "next": "/queues"})
    return browser


def test_nobody_sees_anything_before_signing_in(guarded: Served) -> None:
    browser = guarded.browser()
    assert browser.get("/queues?find=x").place == "/sign-in?next=%2Fqueues%3Ffind%3Dx"
    assert browser.get("/api/").status == browser.get("/live/").status == browser.get("/api/history").status == 401
    told = browser.get("/sign-in").text
    assert headrace.__version__ not in told and "127.0.0.1" not in told and 'href="/queues"' not in told
    assert browser.post("/queues/kept/purge", {"name": "kept"}).place == "/sign-in"
    assert browser.get("/health/ready").status == 200


def test_signing_in_gives_a_new_id_in_a_strict_cookie(guarded: Served) -> None:
    browser = guarded.browser()
    browser.get("/sign-in")
    before = browser.cookie
    answer = browser.post("/sign-in", {"name": "anna", "password": PASSWORD, "next": "/queues"})
    assert (answer.status, answer.place) == (303, "/queues")
    assert browser.cookie != before
    assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["set-cookie"].split("; "))
    assert "anna" in browser.get("/queues").text
    browser.get("/queues")
    browser.post("/sign-out")
    assert browser.get("/queues").status == 303


@pytest.mark.parametrize(
    ("name", "password"), [("anna", "wrong"), ("nobody", PASSWORD), ("anna", "x" * 5_000), ("", "")]
)
def test_a_wrong_name_or_password_says_the_same(guarded: Served, name: str, password: str) -> None:
    browser = sign_in(guarded, name, password)
    assert browser.get("/").status == 303
    guarded.console._site._authenticator.attempts._all.clear()
    browser.get("/sign-in")
    told = browser.follow(browser.post("/sign-in", {"name": name, "password": password}))
    assert "Name or password is wrong." in told.text and PASSWORD not in told.text


def test_passwords_are_tried_a_few_times_a_minute() -> None:
    now_s = 0.0
    attempts = access.Attempts(lambda: now_s)
    each = [attempts.allows("1.2.3.4") for _ in range(limits.SIGN_INS_PER_MINUTE_EACH + 1)]
    assert each == [True] * limits.SIGN_INS_PER_MINUTE_EACH + [False]
    assert attempts.allows("5.6.7.8")
    assert not all(attempts.allows(f"10.0.0.{host}") for host in range(limits.SIGN_INS_PER_MINUTE))
    now_s = 61.0
    assert attempts.allows("1.2.3.4")


def test_behind_a_proxy_attempts_are_counted_by_the_address_that_it_put_last(node: BrokerProcess, users: Path) -> None:
    with serving(broker=node.url, users=users, behind_proxy=True) as served:
        browser = served.browser()
        answer = browser.get("/sign-in")
        assert (
            answer.headers["set-cookie"].startswith("__Host-headrace-") and "; Secure" in answer.headers["set-cookie"]
        )
        for last in ("10.0.0.1", "10.0.0.2"):
            browser.post("/sign-in", {"name": "x", "password": "y"}, X_Forwarded_For=f"1.1.1.1, {last}")
        assert [peer for _, peer in served.console._site._authenticator.attempts._all] == ["10.0.0.1", "10.0.0.2"]


def test_a_session_ends_by_itself() -> None:
    now_s = 0.0
    visitors = access.Visitors(lambda: now_s, session_s=60)
    visitor = visitors.sign_in("anna")
    assert visitors.who(visitor) == "anna"
    now_s = 60.0
    assert visitors.who(visitor) is None


def test_a_user_that_is_taken_away_is_out_at_once(node: BrokerProcess, users: Path, tmp_path: Path) -> None:
    own = tmp_path / "users.toml"
    own.write_text(users.read_text())
    own.chmod(0o600)
    with serving(broker=node.url, users=own) as served:
        browser = sign_in(served, "anna")
        assert browser.get("/").status == 200
        own.write_text("broken")
        served.console.reload()
        assert browser.get("/").status == 200
        own.write_text(users.read_text().replace('"anna"', '"other"'))
        served.console.reload()
        assert browser.get("/").status == 303


def test_a_read_only_user_sees_and_changes_nothing(guarded: Served, client: Client, purgeable: str) -> None:
    browser = sign_in(guarded, "reader")
    guarded.look()
    assert "precious" in browser.get("/queues/kept").text
    assert 'action="/queues/kept/purge"' not in browser.get("/queues/kept").text
    assert browser.post(purgeable, {"name": "kept"}).status == 403
    assert client.queue("kept").counts().visible


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        ("", 0o600, "users"),
        ("[[users]]\nname='a'\npassword='plain'\n", 0o600, "no hash"),
        ("[[users]]\nname='a'\n", 0o600, "password"),
        ("users = []\n", 0o600, "names nobody"),
        ("[[users]\n", 0o600, "users.toml"),
        ("users = []\n", 0o644, "chmod 600"),
    ],
)
def test_a_users_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, mode: int, reason: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(access.UsersUnusable, match=reason):
        access.load_users(path)


def test_read_only_and_hidden_bodies(node: BrokerProcess, client: Client) -> None:
    client.queue("secret-dead", create=True).send(
        "the secret", attributes={"headrace-error": "E", "headrace-reason": "secret"}
    )
    with serving(broker=node.url, read_only=True, hide_bodies=True) as served:
        browser = served.browser()
        for path in (
            "/queues/secret-dead",
            "/queues/secret-dead/messages/1",
            "/dead-letters/secret-dead/1",
            "/dead-letters/secret-dead",
        ):
            for shown in (browser.get(path), browser.get(f"/api{path}")):
                assert shown.status == 200 and "the secret" not in shown.text and '"secret"' not in shown.text
        [group] = browser.get("/api/dead-letters/secret-dead").json["groups"]
        told = browser.get(f"/api/dead-letters/secret-dead?group={group['key']}").json["group"]
        assert (told["count"], told["reason"]) == (1, "")
        assert browser.get("/queues/secret-dead/messages/1/body").status == 404
        found = [browser.get(f"/api/queues/secret-dead?search={text}").json for text in ("secret", "nothing-like-it")]
        assert [[message["line"] for message in facts["messages"]] for facts in found] == [[HIDDEN]] * 2
        assert browser.post("/queues/secret-dead/purge", {"name": "secret-dead"}).status == 403


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "0.0.0.0"}, "--users"),
        ({"host": "0.0.0.0", "users": Path("u")}, "--certfile"),
        ({"certfile": Path("c")}, "--keyfile"),
    ],
)
def test_what_would_be_unsafe_does_not_start(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        check(ConsoleSettings(**settings))  # type: ignore[arg-type]  # one case each


def test_behind_a_proxy_with_users_is_allowed() -> None:
    check(ConsoleSettings(host="0.0.0.0", users=Path("u"), behind_proxy=True))


def test_over_tls_the_cookie_is_secure_and_pages_are_served(node: BrokerProcess, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(keyfile)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(broker=node.url, certfile=certfile, keyfile=keyfile) as served:
        connection = http.client.HTTPSConnection("localhost", served.port, timeout=PATIENCE_S, context=context)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"Overview" in answer.read()
        assert re.match(r"__Host-headrace-\d+=.*; Secure", answer.headers["set-cookie"])
        connection.close()
