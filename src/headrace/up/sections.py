"""What a settings file can ask for: a section a command, and what `headrace up` has to know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Any, Final

import msgspec

from headrace.settings import Resolved

Check = Callable[[Resolved[Any]], None]
"""Refuses combinations of settings. Raises: SettingsError."""


class Stage(IntEnum):
    """When a section's services are started: one stage is ready, or given up for now, before the next begins."""

    BROKER = 0
    SYSTEMS = 1
    CONSOLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One command that can be a service."""

    command: tuple[str, ...]
    settings: str
    """Where its Struct is, `module:name`: imported when it is needed."""
    stage: Stage
    stops: int
    """When it is stopped: producers first, the broker last."""
    check: str = ""
    """Where the function is that refuses combinations, `module:name`; it takes settings, or settings and origins."""
    required: str = ""
    """A setting without which it cannot run."""
    obeys_hup: bool = False
    """HUP makes it read its settings, code or certificates anew."""
    fixed: str | tuple[str, ...] = ()
    """The settings that HUP does not change, or where they are named, `module:name`. Empty: HUP changes none."""
    several: bool = True
    """It may have services with names."""
    reads: str = ""
    """A setting that names a file (`FILE` or `FILE:NAME`) whose content counts as a setting."""

    def needs_restart(self, changes: set[str]) -> bool:
        """Whether HUP is not enough for these changes of a service."""
        fixed = load(self.fixed) if isinstance(self.fixed, str) else self.fixed
        return bool(changes & {*fixed, "environ", "content"}) if fixed else bool(changes)

    def kind(self) -> type[msgspec.Struct]:
        found: type[msgspec.Struct] = load(self.settings)
        return found


SECTIONS: Final[dict[str, Section]] = {
    "broker": Section(
        command=("broker",),
        settings="headrace.broker_settings:BrokerSettings",
        check="headrace.broker_settings:check",
        stage=Stage.BROKER,
        stops=3,
        obeys_hup=True,
        several=False,
    ),
    "web": Section(
        command=("serve",),
        settings="headrace.web.settings:WebSettings",
        check="headrace.web.check:check",
        stage=Stage.SYSTEMS,
        stops=0,
        obeys_hup=True,
        fixed="headrace.web.settings:FIXED",
    ),
    "worker": Section(
        command=("worker",),
        settings="headrace.worker_settings:WorkerSettings",
        stage=Stage.SYSTEMS,
        stops=1,
        required="app",
        obeys_hup=True,
        fixed=("broker", "processes", "app_dir", "heartbeat", "metrics_port", "log_format", "log_level"),
    ),
    "stream": Section(
        command=("stream", "run"),
        settings="headrace.stream_settings:StreamSettings",
        stage=Stage.SYSTEMS,
        stops=1,
        required="file",
        reads="file",
    ),
    "console": Section(
        command=("console",),
        settings="headrace.console_settings:ConsoleSettings",
        check="headrace.console_settings:check",
        stage=Stage.CONSOLE,
        stops=2,
    ),
}
"""In the order in which they are shown."""


def load(place: str) -> Any:
    """What is at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
