"""Which handler gets a request."""

from __future__ import annotations

from headrace.http.messages import Handler
from headrace.http.router import Router
from tests.http.support import Rig, get, on_loop


def answer(name: str) -> Handler:
    return lambda request: request.respond(200, name.encode())


@on_loop
async def test_exact_path_wins_then_longest_prefix_then_default() -> None:
    router = Router(
        answer("default"),
        exact={"/metrics": answer("metrics"), "/native/ping": answer("ping")},
        prefixes={"/native/": answer("native"), "/native/v2/": answer("v2")},
    )
    rig = Rig(router)
    paths = [
        "/metrics",
        "/metrics?x=1",
        "/metrics/",
        "/native/ping",
        "/native/x",
        "/native/v2/x",
        "/native",
        "/%6detrics",
    ]
    for path in paths:
        rig.receive(get(path))
    assert [given.body.decode() for given in rig.answers] == [
        "metrics",
        "metrics",
        "default",
        "ping",
        "native",
        "v2",
        "default",
        "default",
    ]
