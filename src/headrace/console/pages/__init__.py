"""The pages, a module a subject. This is the one place to add a page to: its module's PAGES and ACTIONS, and its section."""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.console.page import Action, Page
from headrace.console.pages import dead_letters, overview, queue, queues


class Section(NamedTuple):
    """An entry of the navigation. `name` is what pages call their `section`."""

    name: str
    title: str
    path: str


SECTIONS: Final = (
    Section("overview", "Overview", "/"),
    Section("queues", "Queues", "/queues"),
    Section("dead-letters", "Dead letters", "/dead-letters"),
)

PAGES: Final[tuple[Page, ...]] = (*overview.PAGES, *queues.PAGES, *queue.PAGES, *dead_letters.PAGES)
ACTIONS: Final[tuple[Action, ...]] = (*queue.ACTIONS, *dead_letters.ACTIONS)
