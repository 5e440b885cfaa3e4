"""Topics: what is published, who is given it, how far each is, what is kept for replay."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console.charts import chart
from headrace.console.page import Facts, NotFound, Page, PageContext, PageRequest, paged
from headrace.queue.model import SubscriptionState, TopicDescription, short_name


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?find=` keeps names with that text; `?page=` goes on."""
    find, topics = request.query.get("find", "").lower(), context.snapshot().topics
    shown, pages = paged(request, [topic for topic in topics if find in short_name(topic.info.arn).lower()])
    return {**pages, "find": find, "total": len(topics), "topics": [topic_facts(context, topic) for topic in shown]}


async def topic_page(context: PageContext, request: PageRequest) -> Facts:
    name = request.names["topic"]
    topic = next((one for one in context.snapshot().topics if short_name(one.info.arn) == name), None)
    if topic is None:
        raise NotFound(f"there is no topic {name!r}; `headrace topic create {name}` makes one")
    return {
        "topic": topic_facts(context, topic),
        "subscriptions": [subscription_facts(one) for one in topic.subscriptions],
        "settings": msgspec.to_builtins(topic.info.settings),
        "created_ms": topic.info.created_ms,
        "charts": [
            chart(context, "Published", "messages a second", (f"topic/{name}/published", "published")),
            chart(context, "Log", "messages", (f"topic/{name}/logged", "kept")),
        ],
    }


def topic_facts(context: PageContext, topic: TopicDescription) -> dict[str, Any]:
    name, counts, snapshot = short_name(topic.info.arn), topic.counts, context.snapshot()
    oldest_s = max(0.0, (snapshot.at_ms - counts.oldest_ms) / 1_000) if counts.oldest_ms is not None else None
    return {
        "name": name,
        "arn": topic.info.arn,
        "fifo": topic.info.settings.fifo,
        "subscriptions": len(topic.subscriptions),
        "lag": sum(one.lag for one in topic.subscriptions),
        "waiting": sum(one.waiting for one in topic.subscriptions),
        "published": counts.published,
        "published_s": snapshot.topic_rates.get(topic.info.arn, 0.0),
        "duplicates": counts.duplicates,
        "logged": counts.logged,
        "log_bytes": counts.log_bytes,
        "oldest_s": oldest_s,
        "retention_s": topic.info.settings.retention_ms / 1_000,
        "recent": context.history.recent(f"topic/{name}/published", until_s=context.now_s()),
    }


def subscription_facts(state: SubscriptionState) -> dict[str, Any]:
    """`catching_up`: it is being given the log; else it is live."""
    subscription = state.subscription
    return {
        "queue": short_name(subscription.queue),
        "filter": msgspec.json.encode(subscription.filter).decode() if subscription.filter is not None else "",
        "scope": subscription.scope,
        "lag": state.lag,
        "waiting": state.waiting,
        "catching_up": subscription.position is not None,
        "position": subscription.position,
    }


PAGES: Final = (
    Page("/topics", "topics.html", facts, section="topics"),
    Page("/topics/{topic}", "topic.html", topic_page, section="topics"),
)
