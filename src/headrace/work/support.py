"""What a task asks of its broker, and whether that can do it: refused when it is sent and when a worker starts, not later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from headrace.work.backend import Backend
from headrace.work.dispatch import Dispatch
from headrace.work.errors import NotSupported
from headrace.work.options import Options

if TYPE_CHECKING:
    from headrace.work.app import App


def check_send(dispatch: Dispatch, options: Options, backend: Backend) -> None:
    """Raises NotSupported.

    Args:
        options: of the task.
    """
    _check(_asked(dispatch, options, backend), backend)


def check_app(app: App, backend: Backend) -> None:
    """For a worker, before it begins. Raises NotSupported: a task or schedule needs what the broker lacks."""
    if backend.capabilities.state:
        return
    for task in app.tasks.values():
        options = task.defaults
        feature = _of_options(options.result_ttl_s is not None, options.unique is not None, options.limited)
        if feature:
            raise NotSupported(f"{feature} (task {task.name})", backend.name)
    for definition in app.schedules:
        raise NotSupported(f"a schedule ({definition.name})", backend.name)


def _asked(dispatch: Dispatch, options: Options, backend: Backend) -> Iterable[str]:
    if dispatch.delay_ms > backend.capabilities.delay_max_ms:
        yield f"a delay of more than {backend.capabilities.delay_max_ms // 1_000} s"
    if dispatch.puts and not backend.capabilities.transactions:
        yield "a group"
    if not backend.capabilities.state:
        envelope = dispatch.envelope
        yield _of_options(envelope.result_ttl_s is not None, envelope.unique is not None, options.limited)


def _of_options(keeps: bool, unique: bool, limited: bool) -> str:
    features = {"result_ttl=": keeps, "unique=": unique, "rate= or concurrency=": limited}
    return next((feature for feature, asked in features.items() if asked), "")


def _check(features: Iterable[str], backend: Backend) -> None:
    feature = next(filter(None, features), "")
    if feature:
        raise NotSupported(feature, backend.name)
