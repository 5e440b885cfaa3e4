"""docs/operations.md says what is there, and its recipes work."""

from __future__ import annotations

import re
import sqlite3
import tomllib
from pathlib import Path

import pytest

from headrace.broker_settings import BrokerSettings
from headrace.metrics import METRICS
from headrace.settings import Setting, describe
from headrace.sqs.keys import load_keys
from headrace.web.frontend.metrics import METRICS as WEB_METRICS
from headrace.work.pool.metrics import METRICS as WORK_METRICS
from tests.broker_process import broker

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines() if line.startswith("|")
]
SETTINGS = describe(BrokerSettings, "broker")


def block(kind: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_documented_with_its_flag_variable_and_default(setting: Setting) -> None:
    (row,) = [row for row in ROWS if row[0].startswith((f"`{setting.flag} ", f"`{setting.flag}`"))]
    kind = "" if setting.switch else f" {setting.kind if '|' in setting.kind else setting.kind.upper()}"
    assert row[0].replace("\\", "") == f"`{setting.flag}{kind}`"
    assert row[1] == f"`{setting.variable}`"
    assert row[2].strip("`") == setting.default


def test_no_other_setting_is_documented() -> None:
    documented = {row[1].strip("`") for row in ROWS if row[0].startswith("`--")}
    assert documented == {setting.variable for setting in SETTINGS}


def test_each_metric_is_documented_with_its_kind() -> None:
    documented = {
        row[0].strip("`").partition("{")[0]: row[1] for row in ROWS if row[0].startswith(("`headrace_", "`process_"))
    }
    assert documented == {metric.name: metric.kind for metric, _ in (*METRICS, *WEB_METRICS, *WORK_METRICS)}


def test_the_example_settings_are_real_ones() -> None:
    example = tomllib.loads(block("toml", "[broker]"))["broker"]
    assert {key.replace("-", "_") for key in example} <= {setting.name for setting in SETTINGS}


def test_the_example_keys_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.touch(mode=0o600)
    path.write_text(block("toml", "[[principals]]"))
    key = load_keys(path).find("AKIAORDERS0000000001")
    assert key is not None
    assert key.principal.name == "orders-service"


def test_actions_in_the_log_are_documented() -> None:
    source = Path(__file__).parent.parent / "src" / "headrace" / "node.py"
    logged = set(re.findall(r'"action": "(broker\.[a-z_]+)"', source.read_text(encoding="utf-8"))) - {"broker.ended"}
    documented = set(re.findall(r"`(broker\.[a-z_]+)`", PAGE))
    assert logged <= documented


def test_a_backup_made_while_the_broker_runs_restores(tmp_path: Path) -> None:
    restored = tmp_path / "restored"
    restored.mkdir()
    with broker(tmp_path / "data") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        for number in range(20):
            one.sqs("SendMessage", QueueUrl=url, MessageBody=str(number))
        one.sqs("ReceiveMessage", QueueUrl=url)  # in flight at the time of the backup
        source, target = sqlite3.connect(one.data / "headrace.db"), sqlite3.connect(restored / "headrace.db")
        source.backup(target)
        source.close()
        target.close()
        one.sqs("SendMessage", QueueUrl=url, MessageBody="after the backup")
    with broker(restored) as other:
        url = other.sqs("GetQueueUrl", QueueName="q")[1]["QueueUrl"]
        bodies = set()
        while messages := other.sqs("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10)[1].get("Messages"):
            bodies |= {message["Body"] for message in messages}
        assert bodies == {str(number) for number in range(20)}


def test_the_database_can_be_looked_into_while_the_broker_runs(tmp_path: Path) -> None:
    query = re.findall(r"headrace\.db '(SELECT [^']+)'", PAGE)
    with broker(tmp_path / "data") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        one.sqs("SendMessage", QueueUrl=url, MessageBody="x")
        connection = sqlite3.connect(f"file:{one.data / 'headrace.db'}?mode=ro", uri=True)
        assert connection.execute(query[0]).fetchall() == [("arn:aws:sqs:us-east-1:000000000000:q", 1)]
        connection.close()
