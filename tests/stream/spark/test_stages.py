from __future__ import annotations

import itertools
from collections import Counter

import pytest

import headrace
from headrace.errors import OutcomeUnknown, Unavailable
from headrace.native.client import Client
from headrace.queue.model import Entry, arn_of
from headrace.stream.spark import limits, stages
from headrace.stream.spark.errors import CheckpointChanged, StageLost
from headrace.stream.spark.stages import PublishRecord, StagedPart, decide, fitting
from tests.stream.spark.brokers import lossy

NAME = "flights"
OUT = arn_of("out")


@pytest.fixture(autouse=True)
def _out(client: headrace.Client) -> None:
    client.queue("out", create=True)


def sends(first: int, count: int) -> list[tuple[str, Entry]]:
    return [(OUT, Entry(str(number).encode())) for number in range(first, first + count)]


def published(client: Client) -> Counter[int]:
    return Counter(int(message.body) for message in client.queue("out").peek(10_000))


def staged(client: Client) -> int:
    return len(client.state(stages.state_name(NAME), stages.STAGE))


def test_nothing_is_seen_before_it_is_published(client: headrace.Client) -> None:
    parts = stages.stage(client, NAME, sends(0, 5))
    assert not published(client)
    stages.publish(client, NAME, checkpoint="a", batch=0, parts=parts)
    assert published(client) == Counter(range(5))
    assert staged(client) == 0


def test_batch_that_is_published_is_not_published_again(client: headrace.Client) -> None:
    for _ in range(2):
        parts = stages.stage(client, NAME, sends(0, 5))
        stages.publish(client, NAME, checkpoint="a", batch=0, parts=parts)
    assert published(client) == Counter(range(5))
    assert staged(client) == 0


def test_stages_of_tasks_that_died_are_collected(client: headrace.Client) -> None:
    stages.stage(client, NAME, sends(100, 5))
    stages.publish(client, NAME, checkpoint="a", batch=0, parts=stages.stage(client, NAME, sends(0, 5)))
    assert published(client) == Counter(range(5))
    assert staged(client) == 0


def test_another_checkpoint_is_refused_and_changes_nothing(client: headrace.Client) -> None:
    stages.publish(client, NAME, checkpoint="a", batch=7, parts=stages.stage(client, NAME, sends(0, 5)))
    parts = stages.stage(client, NAME, sends(5, 5))
    with pytest.raises(CheckpointChanged, match=r'up to its batch 7.*option\("adopt", "true"\)'):
        stages.publish(client, NAME, checkpoint="b", batch=0, parts=parts)
    assert published(client) == Counter(range(5))
    stages.publish(client, NAME, checkpoint="b", batch=0, parts=parts, adopt=True)
    assert published(client) == Counter(range(10))


def test_part_that_is_gone_is_an_error_and_not_silently_missing(client: headrace.Client) -> None:
    parts = stages.stage(client, NAME, sends(0, 5))
    stages.discard(client, NAME, parts)
    with pytest.raises(StageLost, match="another query"):
        stages.publish(client, NAME, checkpoint="a", batch=0, parts=parts)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten messages a part, one part a transaction."""
    monkeypatch.setattr(limits, "PART_MESSAGES_MAX", 10)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_answer_loses_and_doubles_nothing(client: headrace.Client, fault: str, lost: int) -> None:
    parts = stages.stage(client, NAME, sends(0, 25))
    assert [part.messages for part in parts] == [10, 10, 5]
    faulty = lossy(client, lambda number: fault if number == lost else "")
    stages.publish(faulty, NAME, checkpoint="a", batch=0, parts=parts)
    assert published(client) == Counter(range(25))


@pytest.mark.parametrize("fault", ["before", "after"])
def test_what_may_be_done_twice_is_tried_again_when_its_answer_is_lost(client: headrace.Client, fault: str) -> None:
    """A write that has published all must not fail for what it cleans up: whoever runs it again doubles it."""
    faulty = lossy(client, lambda number: fault if number % 2 else "")
    kept, stale = stages.stage(faulty, NAME, sends(0, 5)), stages.stage(faulty, NAME, sends(0, 5))
    stages.publish(
        lossy(client, lambda number: fault if number == 2 else ""), NAME, checkpoint="a", batch=0, parts=kept
    )
    assert published(client) == Counter(range(5))
    assert staged(client) == 0
    stages.discard(faulty, NAME, stale)
    stages.forget(faulty, NAME)
    assert stages.read_record(client, NAME) == (None, None)


@pytest.mark.usefixtures("small_parts")
def test_commit_gives_up_after_outcomes_in_a_row_that_nobody_knows(
    client: headrace.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNKNOWN_MAX", 2)
    parts = stages.stage(client, NAME, sends(0, 25))
    with pytest.raises(OutcomeUnknown):
        stages.publish(lossy(client, lambda _: "before"), NAME, checkpoint="a", batch=0, parts=parts)
    every_other = lossy(client, lambda number: "before" if number % 2 else "")
    stages.publish(every_other, NAME, checkpoint="a", batch=0, parts=parts)
    assert published(client) == Counter(range(25))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("lives", range(3))
def test_batch_whose_driver_died_in_between_is_finished_once(client: headrace.Client, lives: int) -> None:
    """The next driver runs the batch again, with stages of its own; the batch after it is published behind it."""
    dying = lossy(client, lambda number: "dead" if number > lives else "")
    parts = stages.stage(client, NAME, sends(0, 25))
    with pytest.raises(Unavailable):
        stages.publish(dying, NAME, checkpoint="a", batch=0, parts=parts)
    again = stages.stage(client, NAME, sends(0, 25))
    stages.publish(client, NAME, checkpoint="a", batch=0, parts=again)
    stages.publish(client, NAME, checkpoint="a", batch=1, parts=stages.stage(client, NAME, sends(25, 5)))
    assert published(client) == Counter(range(30))
    assert staged(client) == 0
    record = stages.read_record(client, NAME)[1]
    assert record == PublishRecord("a", 1, (), 30)


@pytest.mark.usefixtures("small_parts")
def test_two_drivers_of_one_checkpoint_publish_once_between_them(client: headrace.Client) -> None:
    """The second one publishes everything whenever the first is about to commit."""
    first, second = (stages.stage(client, NAME, sends(0, 25)) for _ in range(2))
    overtaken = itertools.count()

    def overtake(number: int) -> str:
        if number == 2 and next(overtaken) == 0:
            stages.publish(client, NAME, checkpoint="a", batch=0, parts=second)
        return ""

    stages.publish(lossy(client, overtake), NAME, checkpoint="a", batch=0, parts=first)
    assert published(client) == Counter(range(25))


def test_parts_are_cut_by_size(client: headrace.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MAX", 100)
    parts = stages.stage(client, NAME, [(OUT, Entry(b"x" * 60)) for _ in range(3)])
    assert [(part.messages, part.size_bytes) for part in parts] == [(1, 60), (1, 60), (1, 60)]


def test_transaction_takes_as_many_parts_as_fit() -> None:
    parts = [StagedPart(str(number), 6_000, 1_000) for number in range(3)]
    assert fitting(parts) == parts[:1]
    assert fitting([StagedPart("a", 4_000, 1), StagedPart("b", 6_000, 1), StagedPart("c", 1, 1)])[-1].key == "b"
    assert fitting([StagedPart("a", 1, limits.COMMIT_BYTES_MAX + 1)])[0].key == "a"
    assert fitting([]) == []


def test_decision_is_kept_until_it_is_done() -> None:
    part = StagedPart("a", 1, 1)
    wanted = PublishRecord("x", 3, (StagedPart("b", 1, 1),))
    undone, done = PublishRecord("x", 3, (part,)), PublishRecord("x", 3)
    assert decide(NAME, None, wanted, adopt=False) == wanted
    assert decide(NAME, undone, wanted, adopt=False) == undone
    assert decide(NAME, done, wanted, adopt=False) is None
    assert decide(NAME, PublishRecord("x", 4), wanted, adopt=False) is None
    assert decide(NAME, PublishRecord("x", 2, (), 9), wanted, adopt=False) == PublishRecord("x", 3, wanted.parts, 9)
    assert decide(NAME, PublishRecord("y", 9, (part,)), wanted, adopt=True) == PublishRecord("y", 9, (part,))
    assert decide(NAME, PublishRecord("y", 9), wanted, adopt=True) == PublishRecord("x", 3, wanted.parts, base=10)


def test_batches_are_numbered_on_across_checkpoints() -> None:
    assert stages.number_of(NAME, None, "x", 3, adopt=False) == 3
    assert stages.number_of(NAME, PublishRecord("x", 2, base=10), "x", 3, adopt=False) == 13
    assert stages.number_of(NAME, PublishRecord("x", 2, base=10), "y", 0, adopt=True) == 13
    with pytest.raises(CheckpointChanged):
        stages.number_of(NAME, PublishRecord("x", 2), "y", 0, adopt=False)
