"""Every request of the console: the guard, the sign-in, then the page, its data, its live part, or the action it names.

/PAGE         HTML, whole without JavaScript
/api/PAGE     the same facts as JSON
/live/PAGE    the live part, as events
POST /ACTION  a form: token checked, done, and back to a page with a notice
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

import msgspec
from markupsafe import Markup

from headrace._version import __version__
from headrace.console import limits, responses, static_files
from headrace.console.addresses import Table, form_of, local_place, query_of
from headrace.console.authenticator import Authenticator
from headrace.console.live import Live, Part, tick_of
from headrace.console.notices import Notice
from headrace.console.page import Action, Facts, NotFound, Page, PageContext, PageRequest, Refused
from headrace.console.pages import ACTIONS, PAGES, SECTIONS
from headrace.console.rendering import environment
from headrace.errors import HeadraceError, QueueNotFound, TopicNotFound
from headrace.http.exchange import Exchange
from headrace.http.guard import find_offence

_log: Final = logging.getLogger("headrace.console")

_HISTORY: Final = "/api/history"
_SPAN_DEFAULT_S, _SPAN_MAX_S = 600, 86_400
_CHART_SERIES_MAX: Final = 32
_UNKNOWN: Final = (NotFound, QueueNotFound, TopicNotFound)


def jsonable(value: Any) -> bytes:
    """Facts as JSON; keys that are no text become text."""
    return msgspec.json.encode(value, enc_hook=str)


class Site:
    """The target of the console's listener. One loop."""

    def __init__(self, context: PageContext, live: Live, authenticator: Authenticator) -> None:
        self._desk, self._live, self._authenticator = context, live, authenticator
        self._hosts = frozenset(host.lower().rstrip(".") for host in context.settings.allow_host)
        self._pages, self._actions = Table[Page](PAGES), Table[Action](ACTIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        env = environment()
        env.globals |= {"static": static_files.address, "version": __version__}
        env.globals["parts"] = env.get_template("parts.html").module
        self._env = env

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path.startswith(static_files.PREFIX):
            self._static(exchange)
        elif exchange.path in ("/health/live", "/healthz"):
            responses.respond(exchange, 200, b'{"status":"live"}\n', responses.JSON)
        elif exchange.path in ("/health/ready", "/readyz"):
            problem = self._desk.snapshot().problem
            body = msgspec.json.encode({"status": "ready" if problem is None else "the broker is away"})
            responses.respond(exchange, 200 if problem is None else 503, body, responses.JSON)
        elif _comes_by_link(exchange):
            # Strict cookies are not sent along a link of another site. A page of ours that goes on by itself gets them.
            responses.respond(exchange, 200, self._env.get_template("arrival.html").render())
        else:
            offence = find_offence(exchange.headers, self._hosts)
            if offence is None:
                self._admit(exchange)
            else:
                text = f"{offence}; a host is admitted with --allow-host NAME\n"
                responses.respond(exchange, 403, text, responses.TEXT)

    def _static(self, exchange: Exchange) -> None:
        found = static_files.files().get(exchange.path.removeprefix(static_files.PREFIX))
        if found is None:
            responses.respond(exchange, 404, "there is no such file\n", responses.TEXT)
        else:
            responses.respond(exchange, 200, found.body, found.content_type, cache=responses.FOR_EVER)

    # --- who ---

    def _admit(self, exchange: Exchange) -> None:
        visitor = self._authenticator.visitor(exchange)
        user = self._authenticator.who(visitor)
        try:
            query = query_of(exchange.query)
        except ValueError:
            responses.respond(exchange, 400, "the query has too many fields\n", responses.TEXT)
            return
        if exchange.method == "POST":
            self._read(exchange, visitor, user, query)
        elif exchange.method not in ("GET", "HEAD"):
            responses.respond(
                exchange,
                405,
                "pages are read with GET, forms sent with POST\n",
                responses.TEXT,
                ((b"Allow", b"GET, HEAD, POST"),),
            )
        elif user is None:
            self._ask_who(exchange, visitor, query)
        else:
            self._get(exchange, visitor, user, query)

    def _ask_who(self, exchange: Exchange, visitor: str, query: dict[str, str]) -> None:
        if exchange.path.startswith(("/api/", "/live/")):
            responses.respond(exchange, 401, b'{"error":"sign in first, at /sign-in"}\n', responses.JSON)
        elif exchange.path == "/sign-in":
            self._show(
                exchange,
                visitor,
                PageRequest("/sign-in", query=query),
                "sign-in.html",
                {"next": query.get("next", "/")},
            )
        else:
            responses.redirect(exchange, f"/sign-in?next={_quoted(exchange.target)}")

    def _read(self, exchange: Exchange, visitor: str, user: str | None, query: dict[str, str]) -> None:
        """Collect a form's body; the listener bounds its length."""
        body = bytearray()

        def more() -> None:
            body.extend(exchange.take())
            if exchange.ended and not exchange.gone:
                body.extend(exchange.take())
                exchange.notify = None
                self._start(exchange, self._post(exchange, visitor, user, query, bytes(body)))

        exchange.notify = more
        more()

    # --- pages ---

    def _get(self, exchange: Exchange, visitor: str, user: str, query: dict[str, str]) -> None:
        path, kind = exchange.path, "page"
        if path == _HISTORY:
            self._history(exchange, query)
            return
        for prefix in ("/api", "/live"):
            if path == prefix or path.startswith(prefix + "/"):
                path, kind = path[len(prefix) :] or "/", prefix
        found = self._pages.find(path)
        if found is None:
            self._fail(exchange, visitor, PageRequest(path, user=user), kind, NotFound(f"there is no page {path}"))
            return
        page, names = found
        request = PageRequest(path, names, query, user=user)
        if kind == "/live":
            self._follow(exchange, visitor, page, request)
        else:
            self._start(exchange, self._answer(exchange, visitor, page, request, kind))

    async def _answer(self, exchange: Exchange, visitor: str, page: Page, request: PageRequest, kind: str) -> None:
        try:
            facts = await page.facts(self._desk, request)
            if page.more is not None:
                facts |= await page.more(self._desk, request)
        except HeadraceError as error:
            self._fail(exchange, visitor, request, kind, error)
            return
        download = facts.pop("download", None)
        if download is not None:
            responses.respond(exchange, 200, download, responses.TEXT, ((b"Content-Disposition", b"attachment"),))
        elif kind == "/api":
            responses.respond(exchange, 200, jsonable(facts), responses.JSON)
        else:
            self._show(exchange, visitor, request, page.template, facts, page)

    def _fail(self, exchange: Exchange, visitor: str, request: PageRequest, kind: str, error: HeadraceError) -> None:
        status = 404 if isinstance(error, _UNKNOWN) else 502
        if kind == "page":
            self._show(exchange, visitor, request, "error.html", {"text": str(error), "status": status}, status=status)
        else:
            responses.respond(exchange, status, msgspec.json.encode({"error": str(error)}), responses.JSON)

    def _show(
        self,
        exchange: Exchange,
        visitor: str,
        request: PageRequest,
        template: str,
        facts: Facts,
        page: Page | None = None,
        status: int = 200,
    ) -> None:
        known = visitor or self._authenticator.visitors.new_id()
        notice = self._desk.notices.find(request.query.get("notice", ""))
        body = self._env.get_template(template).render(
            **self._context(request, facts, page),
            sections=SECTIONS,
            token=self._authenticator.visitors.token(known),
            may_change=self._authenticator.may_change(request.user),
            user=request.user,
            notice=notice,
        )
        responses.respond(exchange, status, body, more=() if visitor else (self._authenticator.set_cookie(known),))

    def _context(self, request: PageRequest, facts: Facts, page: Page | None) -> dict[str, Any]:
        return {
            "facts": facts,
            "request": request,
            "page": page,
            "snapshot": self._desk.snapshot(),
            "settings": self._desk.settings,
            "address": request.path + _query_text(request.query),
        }

    # --- live ---

    def _follow(self, exchange: Exchange, visitor: str, page: Page, request: PageRequest) -> None:
        """A browser that wants a page's live part. Users see the same, so that it is rendered once."""
        nobody = _without_user(request)

        async def render() -> Part:
            return await self._part(page, nobody)

        def may_see() -> bool:
            return self._authenticator.who(visitor) is not None

        if not page.live:
            responses.respond(exchange, 404, b'{"error":"this page has no live part"}', responses.JSON)
        elif not self._live.join(exchange, nobody.path + _query_text(nobody.query), render, may_see):
            text = f"{limits.VIEWERS_MAX} pages are being watched; that is the most\n"
            responses.respond(exchange, 503, text, responses.TEXT, ((b"Retry-After", b"10"),))

    async def _part(self, page: Page, request: PageRequest) -> Part:
        frame, snapshot = self._env.get_template("live.html"), self._desk.snapshot()
        try:
            facts = await page.facts(self._desk, request)
        except HeadraceError as error:
            return frame.render(snapshot=snapshot, gone=str(error), inside=""), b""
        template = self._env.get_template(page.template)
        block = "".join(template.blocks["live"](template.new_context(self._context(request, facts, page))))
        inside = frame.render(snapshot=snapshot, gone="", inside=Markup(block))  # noqa: S704  # a template's own output
        names = [series["name"] for chart in facts.get("charts", ()) for series in chart["series"]]
        now_s = self._desk.now_s()
        tick = {name: self._desk.history.latest(name, until_s=now_s) for name in names}
        return inside, tick_of(now_s, tick) if names else b""

    def _history(self, exchange: Exchange, query: dict[str, str]) -> None:
        """`?series=NAME,NAME&span=600`: times, and the values of each. A comma in a name is `%2C`."""
        names = [unquote(name) for name in query.get("series", "").split(",") if name][:_CHART_SERIES_MAX]
        span_s = PageRequest("", query=query).number("span", _SPAN_DEFAULT_S, least=10, most=_SPAN_MAX_S)
        points = self._desk.history.points(names, span_s=span_s, until_s=self._desk.now_s())
        responses.respond(exchange, 200, msgspec.json.encode(points._asdict()), responses.JSON)

    # --- forms ---

    async def _post(
        self, exchange: Exchange, visitor: str, user: str | None, query: dict[str, str], body: bytes
    ) -> None:
        try:
            many = form_of(body)
        except ValueError:
            responses.respond(exchange, 400, "this is no form\n", responses.TEXT)
            return
        form = {name: values[-1] for name, values in many.items()}
        if not self._authenticator.visitors.token_fits(visitor, form.pop("token", "")):
            responses.respond(
                exchange, 403, "the form is out of date: load its page again, and repeat\n", responses.TEXT
            )
        elif exchange.path == "/sign-in" and self._authenticator.asks:
            await self._sign_in(exchange, form)
        elif user is None:
            responses.redirect(exchange, "/sign-in")
        elif exchange.path == "/sign-out":
            self._authenticator.visitors.sign_out(visitor)
            responses.redirect(exchange, "/", (self._authenticator.set_cookie(""),))
        elif not self._authenticator.may_change(user):
            responses.respond(exchange, 403, "read-only: nothing may be changed here\n", responses.TEXT)
        else:
            await self._act(exchange, PageRequest(exchange.path, {}, query, form, many, user))

    async def _act(self, exchange: Exchange, request: PageRequest) -> None:
        found = self._actions.find(request.path)
        if found is None:
            responses.respond(exchange, 404, "there is no such form\n", responses.TEXT)
            return
        action, names = found
        back = local_place(request.form.get("back", ""))
        try:
            done = await action.do(
                self._desk, PageRequest(request.path, names, request.query, request.form, request.many, request.user)
            )
        except HeadraceError as error:
            self._go(exchange, back, Notice(str(error), bad=True))
            level = logging.INFO if isinstance(error, Refused) else logging.WARNING
            _log.log(
                level,
                "not done: %s",
                error,
                extra={"action": "console.refused", "path": request.path, "user": request.user},
            )
        else:
            self._go(exchange, done.go, Notice(done.notice))
            _log.info(
                "%s", done.notice, extra={"action": "console.changed", "path": request.path, "user": request.user}
            )

    def _go(self, exchange: Exchange, place: str, notice: Notice) -> None:
        path, _, rest = place.partition("?")
        kept = "&".join(piece for piece in rest.split("&") if piece and not piece.startswith("notice="))
        responses.redirect(exchange, f"{path}?{kept + '&' if kept else ''}notice={self._desk.notices.keep(notice)}")

    async def _sign_in(self, exchange: Exchange, form: dict[str, str]) -> None:
        place = local_place(form.get("next", "/"))
        told = await self._authenticator.sign_in(exchange, name=form.get("name", ""), password=form.get("password", ""))
        if isinstance(told, Notice):
            self._go(exchange, f"/sign-in?next={_quoted(place)}", told)
        else:
            responses.redirect(exchange, place, (self._authenticator.set_cookie(told),))

    # --- inside ---

    def _start(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, exchange: Exchange, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001  # a page's bug costs its own request
            _log.exception("a page failed", extra={"action": "console.page_failed", "path": exchange.path})
            responses.respond(exchange, 500, "the console failed here; its log says how\n", responses.TEXT)


def _without_user(request: PageRequest) -> PageRequest:
    query = {name: value for name, value in request.query.items() if name != "notice"}
    return PageRequest(request.path, request.names, query)


def _query_text(query: Any) -> str:
    kept = {name: value for name, value in query.items() if name != "notice"}
    return f"?{urlencode(kept)}" if kept else ""


def _quoted(place: str) -> str:
    return quote(place, safe="")


def _comes_by_link(exchange: Exchange) -> bool:
    """Somebody follows a link of another site to a page: harmless, since a page only shows, and nobody can frame it."""
    headers = exchange.headers
    return (
        exchange.method == "GET"
        and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and not exchange.path.startswith(("/api/", "/live/"))
    )
