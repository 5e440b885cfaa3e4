"""What a broker tells of itself to whoever may read its statistics: version, folder, disk, settings in force. No secrets."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace._version import __version__
from headrace.broker_settings import BrokerSettings, request_bytes_max
from headrace.native.protocol import BrokerAbout, SettingFacts
from headrace.settings import Duration


def about(settings: BrokerSettings, origins: Mapping[str, str], *, started_ms: int) -> BrokerAbout:
    """As it is now; asks the file system how much space there is.

    Args:
        origins: setting → where its value was written, as far as it is known.
    """
    disk = shutil.disk_usage(settings.data)
    return BrokerAbout(
        version=__version__,
        host=platform.node(),
        pid=os.getpid(),
        started_ms=started_ms,
        data=str(settings.data.absolute()),
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        request_bytes_max=request_bytes_max(settings),
        settings=setting_facts(settings, origins),
    )


def setting_facts(settings: Any, origins: Mapping[str, str]) -> list[SettingFacts]:
    """Every setting of a section as text. A value that differs from its default, and of which no origin is known, was `set`."""
    defaults = type(settings)()
    return [
        SettingFacts(
            name,
            without_password(_text(value)),
            origins.get(name) or ("default" if value == getattr(defaults, name) else "set"),
        )
        for name, value in msgspec.structs.asdict(settings).items()
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Duration):
        return f"{value:g}s"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def without_password(text: str) -> str:
    """A URL as it may be shown; any other text as it is."""
    return re.sub(r"(\w+://[^/@:]*):[^/@]*@", r"\1:…@", re.sub(r"([?&]password=)[^&]*", r"\1…", text))
