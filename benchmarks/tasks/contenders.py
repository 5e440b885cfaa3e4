"""The task queues that are compared: how their workers are started, with one process each; else as they are by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Store = Literal["headrace", "redis", "file"]

THREADS: Final = 8
"""Of a worker process that has threads: headrace's default, and Dramatiq's."""

HERE: Final = Path(__file__).parent
APPS: Final = HERE / "apps"


@dataclass(frozen=True)
class Contender:
    """A task queue.

    Attributes:
        name: as the tables show it; headrace's begin with "headrace".
        module: its app, in `apps`.
        store: where tasks wait.
        worker: (folder of the environment's programs) → command line of the worker.
        tasks: how many are measured in the quick mode: about a few seconds' worth.
        keeps: what is on the disk when a task has been accepted.
    """

    name: str
    module: str
    store: Store
    worker: Callable[[Path], list[str]]
    tasks: int
    keeps: str

    @property
    def ours(self) -> bool:
        return self.name.startswith("headrace")


_EVERY_SECOND: Final = "every second"


def _huey(programs: Path) -> list[str]:
    return [str(programs / "huey_consumer"), "huey_app.huey", "--workers", str(THREADS), "--quiet"]


CONTENDERS: Final = (
    Contender(
        "headrace",
        "headrace_app",
        "headrace",
        lambda programs: [str(programs / "headrace"), "worker", "headrace_app:app", "--threads", str(THREADS)],
        60_000,
        "each commit",
    ),
    Contender(
        "Celery, Redis",
        "celery_app",
        "redis",
        lambda programs: [
            str(programs / "celery"), "-A", "celery_app", "worker", "--concurrency", "1", "--loglevel", "ERROR",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
        ],
        2_000,
        _EVERY_SECOND,
    ),
    Contender(
        "Dramatiq, Redis",
        "dramatiq_app",
        "redis",
        lambda programs: [str(programs / "dramatiq"), "dramatiq_app", "--processes", "1", "--threads", str(THREADS)],
        6_000,
        _EVERY_SECOND,
    ),
    Contender(
        "RQ, Redis",
        "rq_app",
        "redis",
        lambda programs: [
            str(programs / "rq"), "worker", "--worker-class", "rq.worker.SimpleWorker", "--quiet", "--url", "$BROKER",
        ],
        1_500,
        _EVERY_SECOND,
    ),
    Contender(
        "Huey, Redis",
        "huey_app",
        "redis",
        _huey,
        12_000,
        _EVERY_SECOND,
    ),
    Contender(
        "Huey, SQLite",
        "huey_app",
        "file",
        _huey,
        6_000,
        "not synced",
    ),
    Contender(
        "taskiq, Redis",
        "taskiq_app",
        "redis",
        lambda programs: [str(programs / "taskiq"), "worker", "taskiq_app:broker", "--workers", "1", "--log-level", "ERROR"],
        6_000,
        _EVERY_SECOND,
    ),
)  # fmt: skip
