"""News fits into notifications, whatever there is to tell, and nothing that others write breaks a node."""

from headrace.queue.store.postgres.news import PAYLOAD_BYTES_MAX, News, payloads, read


def test_little_news_is_one_notification() -> None:
    (payload,) = payloads("n", [1, 2], [("name", b"key")], catalog=True)
    assert read(payload) == News("n", [1, 2], [("name", b"key")], catalog=True)


def test_much_news_is_several_notifications_that_hold_it_all() -> None:
    queues, state = list(range(5_000)), [(f"name{number}", b"k" * 500) for number in range(40)]
    told = payloads("n", queues, state, catalog=False)
    assert all(len(payload.encode()) <= PAYLOAD_BYTES_MAX for payload in told)
    news = [one for payload in told if (one := read(payload)) is not None]
    assert len(news) == len(told)
    assert sorted(queue for one in news for queue in one.queues) == queues
    assert sorted(key for one in news for key in one.state) == sorted(state)


def test_foreign_notification_is_no_news() -> None:
    assert read("hello") is None
    assert read('{"node": 1}') is None
