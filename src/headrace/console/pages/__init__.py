"""The pages, a module a subject. This is the one place to add a page to: its module's PAGES and ACTIONS, and its section."""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.console.page import Action, Page
from headrace.console.pages import (
    dead_letters,
    overview,
    queue,
    queues,
    run,
    schedules,
    settings,
    streams,
    tasks,
    topics,
    web,
    workers,
)


class Section(NamedTuple):
    """An entry of the navigation. `name` is what pages call their `section`."""

    name: str
    title: str
    path: str


SECTIONS: Final = (
    Section("overview", "Overview", "/"),
    Section("queues", "Queues", "/queues"),
    Section("dead-letters", "Dead letters", "/dead-letters"),
    Section("tasks", "Tasks", "/tasks"),
    Section("schedules", "Schedules", "/schedules"),
    Section("web", "Web", "/web"),
    Section("streams", "Streams", "/streams"),
    Section("topics", "Topics", "/topics"),
    Section("workers", "Workers", "/workers"),
    Section("settings", "Settings", "/settings"),
)

_MODULES: Final = (
    overview,
    queues,
    queue,
    dead_letters,
    tasks,
    run,
    schedules,
    web,
    streams,
    topics,
    workers,
    settings,
)
PAGES: Final[tuple[Page, ...]] = tuple(page for module in _MODULES for page in module.PAGES)
ACTIONS: Final[tuple[Action, ...]] = tuple(action for module in _MODULES for action in getattr(module, "ACTIONS", ()))
