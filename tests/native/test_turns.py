from __future__ import annotations

import os

import pytest

from headrace.native.turns import AWAY_FIRST_S, AWAY_MAX_S, Turns, start_of


@pytest.fixture
def turns() -> Turns:
    return Turns(3)


@pytest.fixture
def first() -> int:
    """The node that this process begins with."""
    return start_of(os.getpid()) % 3


def test_all_clients_of_a_process_ask_the_same_node(turns: Turns, first: int) -> None:
    assert [turns.choose(0) for _ in range(5)] == [first] * 5
    assert Turns(3).choose(0) == first


def test_processes_begin_with_different_nodes() -> None:
    assert len({start_of(process) % 3 for process in range(1, 100)}) == 3


def test_next_node_is_asked_while_one_is_away_and_then_that_again(turns: Turns, first: int) -> None:
    turns.failed(first, 10)
    assert turns.choose(10) == (first + 1) % 3
    assert turns.choose(10 + AWAY_FIRST_S) == first


def test_node_that_hung_is_not_tried_again_at_once(turns: Turns, first: int) -> None:
    turns.failed(first, 10, took_s=8)
    assert turns.choose(10 + 7.9) != first
    assert turns.choose(10 + 8) == first


def test_node_that_stays_away_is_tried_less_and_less_often(turns: Turns, first: int) -> None:
    now_s, tries = 0.0, 0
    while now_s < 600:
        if turns.choose(now_s) == first:
            tries += 1
            turns.failed(first, now_s)
        now_s += 0.5
    assert tries <= 6 + 600 / AWAY_MAX_S
    turns.answered(first)
    turns.failed(first, now_s)
    assert turns.choose(now_s + AWAY_FIRST_S) == first


def test_if_all_are_away_each_is_tried(turns: Turns) -> None:
    tried = []
    for _ in range(3):
        tried.append(turns.choose(0))
        turns.failed(tried[-1], 0)
    assert sorted(tried) == [0, 1, 2]
    assert turns.choose(0) in tried


def test_if_all_are_away_the_one_that_failed_the_longest_ago_is_tried() -> None:
    turns = Turns(2)
    for now_s in range(6):
        turns.failed(0, now_s)  # away for 32 s more
    turns.failed(1, 20, took_s=5)
    assert turns.choose(20) == 0
