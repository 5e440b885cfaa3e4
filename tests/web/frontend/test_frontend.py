from __future__ import annotations

from headrace.web.frontend.frontend import _durable_rules
from headrace.web.settings import RESPOND_ASYNC_RULE, DurableSettings, WebSettings


def test_clients_may_ask_for_durable_requests_unless_that_is_off() -> None:
    rules = (DurableSettings(path="/hooks"),)
    assert _durable_rules(WebSettings(durable=rules)) == (*rules, RESPOND_ASYNC_RULE)
    assert _durable_rules(WebSettings(durable=rules, respond_async=False)) == rules
