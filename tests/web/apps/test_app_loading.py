"""Finding an application, and what it speaks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from headrace.errors import InvalidParameter
from headrace.web import durable
from headrace.web.apps.app_loading import AppInvalid, AppNotFound, interface_of, load
from headrace.web.stored import durable_marks

SOURCE = """
import functools
def app(environ, start_response): ...
class Holder:
    inner = app
holder = Holder()
def create_app(name="x", *, debug=False):
    made = functools.partial(app)
    made.name, made.debug = name, debug
    return made
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "shop_site.py").write_text(SOURCE)
    (tmp_path / "shop_pack").mkdir()
    (tmp_path / "shop_pack" / "__init__.py").write_text("")
    (tmp_path / "shop_pack" / "wsgi.py").write_text("def application(environ, start_response): ...\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


@pytest.mark.parametrize("spec", ["shop_site:app", "shop_site", "shop_pack.wsgi", "shop_pack.wsgi:application"])
def test_load_finds_the_application(folder: Path, spec: str) -> None:
    assert interface_of(load(spec, app_dir=folder)) == "wsgi"


def test_load_follows_dots(folder: Path) -> None:
    assert load("shop_site:holder.inner", app_dir=folder).__name__ == "app"


def test_load_calls_a_factory_with_plain_values(folder: Path) -> None:
    app = load('shop_site:create_app("shop", debug=True)', app_dir=folder)
    assert (app.name, app.debug) == ("shop", True)
    assert interface_of(app) == "wsgi"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("shop_sit:app", "did you mean 'shop_site'"),
        ("shop_pack.wsgy:application", "package 'shop_pack' has no module 'wsgy'; did you mean 'wsgi'"),
        ("shop_site.app", "'shop_site' is a module, not a package; did you mean shop_site:app?"),
        ("shop_site:ap", "no attribute 'ap'; did you mean 'app'"),
        ("shop_site.py:app", "give the module, not its file: shop_site:app"),
        ("", "the form is module:app"),
        ("shop-site:app", "no module name"),
        ("shop_site:app(", "the form is"),
        ("shop_site:create_app(open('x'))", "not a plain value"),
        ("shop_site:create_app(**{})", "not understood"),
        ("shop_site:[app][0]", "plain values only"),
        ("shop_pack", "none of app, application, asgi, wsgi;"),
    ],
)
def test_load_says_what_is_missing(folder: Path, spec: str, words: str) -> None:
    with pytest.raises(AppNotFound) as caught:
        load(spec, app_dir=folder)
    assert words in str(caught.value)


def test_load_names_a_candidate(folder: Path) -> None:
    (folder / "shop_other.py").write_text("def my_app(environ, start_response): ...\n")
    with pytest.raises(AppNotFound, match="maybe shop_other:my_app"):
        load("shop_other", app_dir=folder)


def test_load_refuses_to_call_what_cannot_be_called(folder: Path) -> None:
    (folder / "shop_text.py").write_text("name = 'x'\n")
    with pytest.raises(AppInvalid, match="leave out the"):
        load("shop_text:name()", app_dir=folder)


def test_an_import_error_of_the_application_passes_through(folder: Path) -> None:
    (folder / "shop_broken.py").write_text("import shop_missing\n")
    with pytest.raises(ModuleNotFoundError, match="shop_missing"):
        load("shop_broken:app", app_dir=folder)
    (folder / "shop_broken2.py").write_text("from os import no_such_name\n")
    with pytest.raises(ImportError, match="no_such_name"):
        load("shop_broken2:app", app_dir=folder)


def wsgi(environ: Any, start_response: Any) -> Any: ...
def short(e: Any, s: Any) -> Any: ...
async def asgi(scope: Any, receive: Any, send: Any) -> None: ...
def asgi_plain(a: Any, b: Any, c: Any) -> Any: ...
def asgi_two(scope: Any) -> Any: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any, extra: Any = None) -> Any: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsgiEndpoint:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsgiTwo:
    def __init__(self, scope: Any) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def extended(_first: str, environ: Any, start_response: Any) -> Any: ...


@pytest.mark.parametrize("app", [wsgi, short, WsgiClass, WsgiObject(), functools.partial(extended, "a"), wrapped(wsgi)])
def test_wsgi_is_recognised(app: Any) -> None:
    assert interface_of(app) == "wsgi"


@pytest.mark.parametrize(
    "app",
    [asgi, asgi_plain, asgi_two, AsgiObject(), AsgiObject().__call__, AsgiEndpoint, AsgiTwo, wrapped(asgi)],
)
def test_asgi_is_recognised(app: Any) -> None:
    assert interface_of(app) == "asgi"
    assert interface_of(functools.partial(app)) == "asgi"


def test_frameworks_are_recognised() -> None:
    import fastapi
    import flask
    import starlette.applications

    settings = import_module("django.conf").settings  # Django ships no types
    if not settings.configured:
        settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__)
    assert interface_of(flask.Flask("x")) == "wsgi"
    assert interface_of(import_module("django.core.wsgi").get_wsgi_application()) == "wsgi"
    assert interface_of(import_module("django.core.asgi").get_asgi_application()) == "asgi"
    assert interface_of(fastapi.FastAPI()) == "asgi"
    assert interface_of(starlette.applications.Starlette()) == "asgi"


async def make_app() -> Any: ...


def test_any_number_of_arguments_is_wsgi() -> None:
    assert interface_of(validator(lambda environ, start_response: [])) == "wsgi"
    assert interface_of(lambda *args, **kwargs: None) == "wsgi"


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("text", "cannot be called"),
        (lambda: wsgi, "append ()"),
        (make_app, "scope, receive and send"),
        (lambda a, b, c, d: None, "--interface"),
    ],
)
def test_what_is_no_application_is_refused(app: Any, words: str) -> None:
    with pytest.raises(AppInvalid) as caught:
        interface_of(app)
    assert words in str(caught.value)


def test_durable_marks_a_prefix_and_leaves_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_marks, "_durable", {})
    assert durable("/webhooks", methods=["post"])(wsgi) is wsgi
    durable("/webhooks", methods=["POST", "PUT"])
    durable("/orders")
    assert durable_marks.durable_marks() == [
        ("/webhooks", ["POST", "PUT"]),
        ("/orders", ["POST", "PUT", "PATCH", "DELETE"]),
    ]


@pytest.mark.parametrize(("path", "methods"), [("webhooks", ["POST"]), ("/webhooks", "POST")])
def test_durable_refuses_what_it_cannot_mean(path: str, methods: Any) -> None:
    with pytest.raises(InvalidParameter):
        durable(path, methods=methods)
