from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.sqs.keys import KeysUnusable, Principal, load_keys

SECRET = "a secret of some length"
GOOD = f"""
[[principals]]
name = "orders-service"
account = "111122223333"
actions = ["SendMessage"]
queues = ["orders-*"]
keys = [{{ id = "AKIAOLD", secret = "{SECRET}" }}, {{ id = "AKIANEW", secret = "{SECRET}" }}]

[[principals]]
name = "admin"
keys = [{{ id = "AKIAADMIN", secret = "{SECRET}" }}]
"""


def write(folder: Path, content: str | bytes, *, name: str = "keys.toml", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def refused(path: Path) -> str:
    with pytest.raises(KeysUnusable) as caught:
        load_keys(path)
    text = str(caught.value)
    assert str(path) in text
    assert SECRET not in text
    return text


def test_both_live_keys_name_their_principal(tmp_path: Path) -> None:
    ring = load_keys(write(tmp_path, GOOD))
    for key_id in ("AKIAOLD", "AKIANEW"):
        key = ring.find(key_id)
        assert key is not None
        assert key.secret == SECRET
        assert key.principal == Principal("111122223333", "orders-service", key_id, ("SendMessage",), ("orders-*",))
        assert key.principal.arn == "arn:aws:iam::111122223333:user/orders-service"
    assert ring.find("AKIANOBODY") is None


def test_account_actions_and_queues_are_optional(tmp_path: Path) -> None:
    key = load_keys(write(tmp_path, GOOD)).find("AKIAADMIN")
    assert key is not None
    assert key.principal == Principal("000000000000", "admin", "AKIAADMIN")
    assert key.principal.unrestricted


def test_json_is_read_by_its_name(tmp_path: Path) -> None:
    content = {"principals": [{"name": "a", "keys": [{"id": "AKIAA", "secret": SECRET}]}]}
    assert load_keys(write(tmp_path, json.dumps(content), name="keys.json")).find("AKIAA") is not None


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert SECRET not in repr(load_keys(write(tmp_path, GOOD)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620])
def test_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    text = refused(write(tmp_path, GOOD, mode=mode))
    assert f"mode {mode:04o}" in text
    assert "chmod 600" in text


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.toml")
    assert "directory" in refused(tmp_path)


def test_huge_file_is_refused(tmp_path: Path) -> None:
    assert "is longer than" in refused(write(tmp_path, b"#" * (4 * 1_048_576 + 1)))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("principals = [\n1,\n,", "line 3"),
        ("[[principals]]\nname = a", "line 2"),
        (b"\xff", "byte 0"),
        ("people = []", "people"),
        ("principals = []", "principals"),
        ("", "principals"),
        (GOOD.replace("orders-service", "or ders"), "principals[0].name"),
        (GOOD.replace("111122223333", "1111"), "principals[0].account"),
        (GOOD.replace('name = "admin"', 'nam = "admin"'), "principals[1]"),
        (GOOD.replace("AKIANEW", "A B"), "principals[0].keys[1].id"),
        (GOOD.replace("AKIANEW", "AKIAOLD"), "principals[0].keys"),
        (GOOD.replace("AKIAADMIN", "AKIAOLD"), "principals[1].keys"),
        (GOOD.replace('["SendMessage"]', '"SendMessage"'), "principals[0].actions"),
        (GOOD.replace(f'{{ id = "AKIAADMIN", secret = "{SECRET}" }}', ""), "principals[1].keys"),
        (GOOD.replace(f'"AKIAADMIN", secret = "{SECRET}"', '"AKIAADMIN", secret = "short"'), "keys[0].secret"),
        (
            GOOD.replace("}]\n\n", f'}}, {{ id = "AKIA3", secret = "{SECRET}" }}]\n\n'),
            "principals[0].keys: orders-service has 3 keys",
        ),
    ],
)
def test_an_error_names_its_place(tmp_path: Path, content: str | bytes, place: str) -> None:
    assert place in refused(write(tmp_path, content))


def test_json_error_names_its_line(tmp_path: Path) -> None:
    assert "line 3" in refused(write(tmp_path, '{\n"principals": [\n  nonsense]}', name="keys.json"))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["principals", "name", "keys"]), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.binary(max_size=60) | ANY_JSON)
def test_any_content_is_keys_or_a_clear_refusal(tmp_path: Path, content: Any) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    for name in ("keys.toml", "keys.json"):
        refused(write(tmp_path, raw, name=name))
