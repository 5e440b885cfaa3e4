"""Validates the settings of the web server before any process starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from headrace.managed_broker import check_broker
from headrace.settings import SettingsError, flag_of
from headrace.web.forwarded import TrustedProxies
from headrace.web.frontend.rate_limits import RateLimit, limits_of
from headrace.web.frontend.routes import RouteTable, apps_of, place_of, routes_of
from headrace.web.paths import prefix_of
from headrace.web.settings import WebSettings


def check(settings: WebSettings, origins: Mapping[str, str] | None = None) -> None:
    """Raise an error for settings that cannot work.

    Args:
        origins: where each setting was written.

    Raises: SettingsError: names the setting and how to fix it.
    """
    _check_app(settings)
    RouteTable((route, None) for route in routes_of(settings))
    _check_upstreams(settings)
    if settings.direct and not apps_of(settings):
        raise SettingsError(flag_of("direct"), "needs an app: static folders and upstreams have no workers")
    _check_clients(settings)
    _check_address(settings, origins or {})
    _check_tls(settings)
    check_broker(settings.broker)
    _check_durable(settings)
    if settings.reload and importlib.util.find_spec("watchfiles") is None:
        raise SettingsError("--reload", "needs the package watchfiles: pip install 'headrace[web]'")


def _check_app(settings: WebSettings) -> None:
    for app in apps_of(settings):
        if app.endswith(".py") or "/" in app.partition(":")[0]:
            named = Path(app.partition(":")[0])
            if named.suffix == ".py":
                module = ".".join(named.with_suffix("").parts)
                raise SettingsError(app, f"name the app by its module: {module}:app")
            raise SettingsError(app, "no such folder; an app is named module:app")


def _check_durable(settings: WebSettings) -> None:
    if settings.durable and not settings.broker:
        raise SettingsError("web.durable", "needs --broker URL or DIR: where the requests are stored")
    for index, rule in enumerate(settings.durable):
        try:
            prefix_of(rule.path)
        except ValueError as error:
            raise SettingsError(f"web.durable[{index}].path", str(error)) from None


def _check_upstreams(settings: WebSettings) -> None:
    for index, route in enumerate(routes_of(settings)):
        if route.proxy:
            from headrace.web.proxy.address import upstreams_of  # noqa: PLC0415 - few have any

            upstreams_of(route, place_of(index, settings))


def _check_clients(settings: WebSettings) -> None:
    """Check trusted proxies and rate limits."""
    if settings.proxy_headers:
        TrustedProxies(settings.trusted_proxies)
    for limit, place in limits_of(settings):
        RateLimit(limit, place=place)


def _check_address(settings: WebSettings, origins: Mapping[str, str]) -> None:
    if settings.uds is None:
        return
    for name in ("host", "port"):
        if origins.get(name, "default").startswith("--"):
            raise SettingsError(
                flag_of("uds"), f"listens on a Unix socket instead of {flag_of(name)}: give one of them"
            )


def _check_tls(settings: WebSettings) -> None:
    if settings.certfile is None:
        if settings.keyfile is not None:
            raise SettingsError(flag_of("keyfile"), f"needs {flag_of('certfile')} as well")
        return
    from headrace.web.frontend.frontend import make_tls  # noqa: PLC0415 - OpenSSL is loaded only if it is used

    make_tls(settings)
