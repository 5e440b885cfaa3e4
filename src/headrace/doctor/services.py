"""What is set: the settings file, ports, certificates, keys; and whether what should run answers."""

from __future__ import annotations

import base64
import errno
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.broker_settings import BrokerSettings, databases_of
from headrace.broker_settings import check as check_broker
from headrace.doctor.lines import Line, ok, problem, warning
from headrace.doctor.store import look_at_store
from headrace.native.endpoint import SOCKET_NAME, is_served
from headrace.native.protocol import CALL_PATH
from headrace.presence import BrokerFacts, read
from headrace.queue.model import HolderState
from headrace.queue.store.backup import open_lock
from headrace.settings import SettingsError, resolve
from headrace.settings_file import find_file
from headrace.sqs.keys import KeysUnusable, load_keys
from headrace.up.plan import Plan, make_plan

EXPIRES_SOON: Final = timedelta(days=14)
ANSWER_S: Final = 5.0


class Wanted:
    """What is meant to run: the services of the settings file; without one, a broker by flags and environment."""

    def __init__(self, environ: Mapping[str, str], folder: Path, config: Path | None) -> None:
        self.plan: Plan | None = None
        self.settings: dict[str, Any] = {}
        self.line: Line
        try:
            file = find_file(folder, config, environ)
            if file is None:
                found = resolve(BrokerSettings, "broker", flags={}, environ=environ, folder=folder).settings
                check_broker(found)
                self.settings = {"broker": found}
                self.line = ok("settings", "no headrace.toml here: a broker with its defaults and the environment")
                return
            self.plan = make_plan(environ=environ, folder=folder, config=config)
            self.settings = {service.name: service.settings for service in self.plan.services}
            self.line = ok("settings", f"{file} is right: {', '.join(self.settings)}")
        except SettingsError as error:
            self.line = problem("settings", str(error), "`headrace config reference` lists what there is")

    def data(self) -> Path:
        """The broker's data folder."""
        broker = self.settings.get("broker", BrokerSettings())
        return Path(broker.data)


def look_at_services(wanted: Wanted, data: Path) -> Iterator[Line]:
    yield wanted.line
    runs = data.is_dir() and (_is_taken(data) or is_served(data))  # a broker on PostgreSQL takes no lock
    if runs:
        yield from look_at_broker(data)
    for name, settings in wanted.settings.items():
        port, host = getattr(settings, "port", None), getattr(settings, "host", "127.0.0.1")
        if isinstance(port, int) and port:
            yield judge_port(name, host, port, runs=runs)
        certfile = getattr(settings, "certfile", None)
        if certfile is not None:
            yield judge_certificate(name, Path(certfile), now=datetime.now(UTC))
        keys = getattr(settings, "keys", None)
        if isinstance(keys, Path):
            yield judge_keys(keys)
        if isinstance(settings, BrokerSettings):
            for store, url in databases_of(settings):
                yield from look_at_store(store, url)


def _is_taken(data: Path) -> bool:
    with open_lock(data) as alone:
        return not alone


def look_at_broker(data: Path) -> Iterator[Line]:
    """A broker has the folder: does it answer?"""
    try:
        status, _ = _ask(data / SOCKET_NAME, "GET", "/health/ready")
    except OSError as error:
        yield problem(
            "running broker",
            f"has {data} and does not answer: {error}",
            "look at its log; USR1 makes it say where it is",
        )
        return
    yield (
        ok("running broker", "ready")
        if status == 200
        else problem("running broker", f"answers {status}: not ready", "look at its log")
    )
    yield from look_at_nodes(data)


def look_at_nodes(data: Path) -> Iterator[Line]:
    """The nodes of the running broker's store, if several may share it, and it tells without a key."""
    asked = json.dumps({"type": "ListHolders", "kind": "broker"}).encode()
    try:
        status, body = _ask(data / SOCKET_NAME, "POST", CALL_PATH, asked)
    except OSError:
        return  # it answered a moment ago: the next look tells
    if status == 200:
        yield from judge_nodes(msgspec.json.decode(body, type=list[HolderState]))


def judge_nodes(nodes: list[HolderState]) -> Iterator[Line]:
    """One line: where they are; nodes of several versions are told."""
    told = [read(node.kind, node.facts) for node in nodes]
    if not told:
        return
    places = ", ".join(sorted(f"{one.url or '?'} (pid {one.pid})" for one in told if isinstance(one, BrokerFacts)))
    fact = f"{len(told)} on this store: {places}"
    versions = sorted({one.version for one in told})
    if len(versions) > 1:
        yield warning("nodes", f"{fact}; of versions {', '.join(versions)}", "finish the upgrade")
    else:
        yield ok("nodes", fact)


def _ask(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ANSWER_S)
    try:
        connection.sock.connect(str(path))
        connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def judge_port(name: str, host: str, port: int, *, runs: bool) -> Line:
    """Whether it can be listened on: by listening."""
    subject = f"port of {name}"
    plain = host.strip("[]")
    try:
        with socket.create_server((plain, port), family=socket.AF_INET6 if ":" in plain else socket.AF_INET):
            return ok(subject, f"{host}:{port} is free")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and runs:
            return ok(subject, f"{host}:{port} is in use, as something of headrace runs")
        if error.errno == errno.EADDRINUSE:
            return problem(
                subject, f"{host}:{port} is taken by another program", f"`ss -ltnp sport = :{port}` names it"
            )
        return problem(subject, f"{host}:{port}: {error.strerror}", "name another address, or allow this one")


def judge_certificate(name: str, file: Path, *, now: datetime) -> Line:
    subject = f"certificate of {name}"
    try:
        expires = expiry(file.read_text())
    except OSError as error:
        return problem(subject, f"{file}: {error.strerror}", "name the file with --certfile")
    except (ValueError, IndexError) as error:
        return problem(subject, f"{file} is no certificate in PEM: {error}", "name the file with --certfile")
    fact = f"{file} is good until {expires:%Y-%m-%d}"
    if expires <= now:
        return problem(subject, f"{file} has expired on {expires:%Y-%m-%d}", "renew it, then HUP")
    if expires - now < EXPIRES_SOON:
        return warning(subject, fact, "renew it, then HUP")
    return ok(subject, fact)


def expiry(pem: str) -> datetime:
    """When the first certificate of a PEM file ends. Raises ValueError, IndexError."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in pem:
        raise ValueError("there is no CERTIFICATE in it")
    der = base64.b64decode(pem.partition(begin)[2].partition(end)[0])
    fields = _elements(_elements(_elements(der)[0][1])[0][1])  # certificate, what is signed, its fields
    version = 1 if fields[0][0] == 0xA0 else 0
    tag, text = _elements(fields[version + 3][1])[1]  # serial, algorithm, issuer, validity: from, until
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """The (tag, content) pairs of a DER sequence. Source: ITU-T X.690, 8.1."""
    elements, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(der[at : at + count]), at + count
        elements.append((tag, der[at : at + length]))
        at += length
    return elements


def judge_keys(file: Path) -> Line:
    try:
        load_keys(file)
    except KeysUnusable as error:
        return problem("keys", str(error), "the broker does not start with it")
    return ok("keys", f"{file} can be read, and by nobody else")
