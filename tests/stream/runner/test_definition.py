from __future__ import annotations

import msgspec

from headrace.stream.runner.definition import Definition, changes, decode_definition, define, encode_definition
from headrace.stream.runner.job import Job, Settings
from tests.stream.runner.pipelines import counts

STORED = Definition({"aggregate-1": "A"}, {"events": "queue events"}, 8, "the plan")


def changed(**fields: object) -> list[str]:
    return changes(STORED, msgspec.structs.replace(STORED, **fields))


def test_same_definition_goes_on_whatever_its_text() -> None:
    assert changed(text="other words") == []


def test_what_state_depends_on_is_named() -> None:
    assert changed(shards=4) == ["shards 8 → 4"]
    assert changed(signatures={"aggregate-1": "B"}) == ["operator aggregate-1: A → B"]
    assert changed(signatures={}) == ["operator aggregate-1 is gone"]
    assert changed(signatures={"aggregate-1": "A", "join-1": "J"}) == ["operator join-1 is new"]
    assert changed(sources={"events": "queue other"}) == ["source events: queue events → queue other"]
    assert "layout" in changed(layout=2)[0]


def test_half_removed_state_fits_nothing() -> None:
    assert changes(msgspec.structs.replace(STORED, layout=0), STORED) == ["a reset of it was not finished"]


def test_long_signatures_are_cut() -> None:
    [text] = changed(signatures={"aggregate-1": "B" * 1_000})
    assert len(text) < 300


def test_definition_of_a_pipeline_is_the_same_when_it_is_read() -> None:
    pipeline = counts()
    made = define(Job(pipeline.plan, pipeline.physical, Settings()), text="t")
    assert decode_definition(encode_definition(made)) == made
    assert made.sources == {"events": "queue events"} and list(made.signatures) == ["aggregate-1"]


def test_only_the_part_of_an_operator_that_changed_is_told() -> None:
    def signed(size: int) -> str:
        return f'{{"operator":{{"window":["Tumble",{size}],"keys":["k"]}},"reads":["k string"]}}'

    stored = Definition({"aggregate-1": signed(10)}, {"events": "queue a"}, 8)
    given = Definition({"aggregate-1": signed(20)}, {"events": "queue b"}, 8)
    assert changes(stored, given) == [
        "source events: queue a → queue b",
        "operator aggregate-1: window tumble 10 microseconds → tumble 20 microseconds",
    ]
