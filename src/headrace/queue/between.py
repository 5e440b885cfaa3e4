"""What a broker asks of a store that other brokers share, for itself and not for a client: so it is not on the wire."""

from __future__ import annotations

from headrace.queue.model import HolderState
from headrace.queue.operations import Operation


class TellHolders(Operation, gc=False, frozen=True):
    """Who is present here, and who of `asked` is elsewhere. Not durable. → list[str]: those of `asked` that are present at
    another broker.

    Attributes:
        node: the broker, a name that no other has.
        present: holders, as they are now.
        gone: those that are not here any more.
        asked: names to look for.
        all_gone: nobody is here: the broker stops.
    """

    node: str
    present: list[HolderState]
    gone: list[str]
    asked: list[str]
    all_gone: bool = False


class ListElsewhere(Operation, gc=False, frozen=True):
    """Those present at other brokers than `node`; `kind`: only these, empty for all.
    → list[HolderState], sorted by name, each once"""

    node: str
    kind: str
