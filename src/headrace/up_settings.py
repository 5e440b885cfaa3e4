"""What `headrace up` can be told about itself: the section `up`. What it runs is said by the other sections."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.settings import Duration, setting


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `up`."""

    drain: Annotated[
        Duration, setting("Time for all services together to finish after TERM; then what is left is killed.", ge=0)
    ] = Duration(60)
    log_format: Annotated[Literal["auto", "text", "json"], setting("auto: text on a terminal, else json.")] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], setting("Least severe line of its own to log.")
    ] = "info"
