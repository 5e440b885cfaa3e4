"""How queues and topics are named."""

from __future__ import annotations

import pytest

from headrace.queue.model import arn_of, short_name, topic_arn_of


@pytest.mark.parametrize("arn", [arn_of("a.fifo"), topic_arn_of("a.fifo")])
def test_what_is_in_the_default_region_and_account_has_a_short_name(arn: str) -> None:
    assert short_name(arn) == "a.fifo"


@pytest.mark.parametrize("arn", [arn_of("a", region="eu-west-1"), topic_arn_of("a", account="123456789012")])
def test_what_is_elsewhere_goes_by_its_arn(arn: str) -> None:
    assert short_name(arn) == arn
