from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import settings_file
from headrace.broker_settings import BrokerSettings, check, is_loopback, request_bytes_max
from headrace.settings import (
    Duration,
    Resolved,
    SettingsError,
    Size,
    describe,
    dump,
    load,
    parse_duration,
    parse_size,
    resolve,
    setting,
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    folder: Annotated[str, setting("A folder.", relative=True)] = ""
    names: tuple[str, ...] = ()
    rate: float = 1.0


class Example(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, setting("A port.", ge=0, le=65_535)] = 9324
    data: Annotated[Path | None, setting("A folder.")] = None
    size: Annotated[Size, setting("A size.", le=2**20)] = Size(1_024)
    most: Annotated[Size | None, setting("A size or none.")] = None
    wait: Annotated[Duration, setting("A time.")] = Duration(10)
    cooldowns: Annotated[bool, setting("A switch.")] = True
    level: Annotated[Literal["low", "high"], setting("A choice.")] = "low"
    allow_host: Annotated[tuple[str, ...], setting("Names.")] = ()
    folders: Annotated[tuple[Path, ...], setting("Folders.")] = ()
    parts: Annotated[tuple[Part, ...], setting("Parts.")] = ()


def read(
    folder: Path, *, flags: dict[str, Any] | None = None, env: dict[str, str] | None = None, config: Path | None = None
) -> Resolved[Example]:
    return resolve(Example, "broker", flags=flags or {}, environ=env or {}, folder=folder, config=config)


def refused(folder: Path, **sources: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read(folder, **sources)
    return caught.value


# ---------------------------------------------------------------------------------------------------------- sources


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[broker]\nport = 1\nwait = '1s'\nlevel = 'high'\n")
    env = {"HEADRACE_BROKER__PORT": "2", "HEADRACE_BROKER__WAIT": "2s"}
    found = read(tmp_path, flags={"port": "3", "size": None, "allow_host": ()}, env=env)
    assert found.settings == Example(port=3, wait=Duration(2), level="high")
    assert found.origins["port"] == "--port"
    assert found.origins["wait"] == "HEADRACE_BROKER__WAIT"
    assert found.origins["level"] == f"{tmp_path / 'headrace.toml'}: broker.level"
    assert found.origins["size"] == "default"


def test_pyproject_is_read_where_there_is_no_own_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.headrace.broker]\nport = 1\n")
    assert read(tmp_path).settings.port == 1
    (tmp_path / "headrace.toml").write_text("[broker]\nport = 2\n")
    assert read(tmp_path).settings.port == 2


def test_pyproject_without_our_table_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n")
    assert read(tmp_path).settings == Example()


def test_a_named_file_is_read_instead_and_must_exist(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[broker]\nport = 1\n")
    other = tmp_path / "other.toml"
    assert "cannot be read" in refused(tmp_path, config=other).reason
    other.write_text("[broker]\nport = 2\n")
    assert read(tmp_path, config=other).settings.port == 2
    assert read(tmp_path, env={"HEADRACE_CONFIG": str(other)}).settings.port == 2


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[broker]\ndata = 'store'\n")
    assert read(tmp_path).settings.data == tmp_path / "store"
    assert read(tmp_path, flags={"data": "store"}).settings.data == Path("store")


def test_hyphens_and_underscores_are_the_same_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[broker]\nallow-host = ['a', 'b']\n")
    assert read(tmp_path).settings.allow_host == ("a", "b")


def test_empty_variables_and_other_variables_count_as_not_set(tmp_path: Path) -> None:
    env = {"HEADRACE_BROKER__PORT": "", "HEADRACE_BROKER": "http://x", "HEADRACE_SERVE__PORT": "x"}
    assert read(tmp_path, env=env).settings == Example()


# ------------------------------------------------------------------------------------------------------------ tables


def test_tables_of_a_file_are_read_and_their_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(
        "[broker]\nfolders = ['a', '/b']\n"
        "[[broker.parts]]\npath = '/x'\nfolder = 'sub'\nrate = 2\n[[broker.parts]]\npath = '/y'\nnames = ['a', 'b']\n"
    )
    found = read(tmp_path).settings
    assert found.parts == (Part(path="/x", folder=str(tmp_path / "sub"), rate=2.0), Part(path="/y", names=("a", "b")))
    assert found.folders == (tmp_path / "a", Path("/b"))


def test_tables_may_be_json_in_the_environment(tmp_path: Path) -> None:
    env = {"HEADRACE_BROKER__PARTS": '[{"path": "/x", "folder": "sub"}]'}
    assert read(tmp_path, env=env).settings.parts == (Part(path="/x", folder="sub"),)


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("[[broker.parts]]\npth = '/'\n", "broker.parts[0]", "no key 'pth'; did you mean 'path'?"),
        ("[[broker.parts]]\npath = '/'\n[[broker.parts]]\npath = 1\n", "broker.parts[1].path", "expected `str`"),
        ("[[broker.parts]]\nrate = 1\n", "broker.parts[0]", "path is missing"),
        ("[broker.parts]\npath = '/'\n", "broker.parts", "must be a list of tables"),
        ("[broker]\nparts = [1]\n", "broker.parts", "must be a list of tables"),
    ],
)
def test_a_tables_error_names_file_table_index_and_key(tmp_path: Path, content: str, place: str, reason: str) -> None:
    (tmp_path / "headrace.toml").write_text(content)
    error = refused(tmp_path)
    assert error.place == f"{tmp_path / 'headrace.toml'}: {place}"
    assert reason in error.reason


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    assert "is not JSON" in refused(tmp_path, env={"HEADRACE_BROKER__PARTS": "path=/x"}).reason


def test_dumped_settings_load_as_they_were() -> None:
    settings = Example(
        data=Path("a b"), wait=Duration(0.25), size=Size(7), allow_host=("x,y",), parts=(Part(path="/x", rate=0.5),)
    )
    assert load(Example, dump(settings)) == settings
    assert load(Example, dump(Example())) == Example()


# -------------------------------------------------------------------------------------------------------- conversion


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("size", "64KiB", 65_536),
        ("most", "1MiB", 1_048_576),
        ("wait", "250ms", 0.25),
        ("cooldowns", "off", False),
        ("cooldowns", "TRUE", True),
        ("level", "high", "high"),
        ("allow_host", "a, b,", ("a", "b")),
        ("data", "a/b", Path("a/b")),
    ],
)
def test_text_becomes_the_fields_type(tmp_path: Path, name: str, text: str, value: Any) -> None:
    found = getattr(read(tmp_path, env={f"HEADRACE_BROKER__{name.upper()}": text}).settings, name)
    assert found == value
    assert type(found) in (type(value), Size, Duration)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("port", "abc", "expected `int`"),
        ("port", "65536", "expected `int` <= 65535"),
        ("port", "5_0", "expected `int`"),
        ("size", "2MiB", "<= 1048576"),
        ("size", "big", "expected bytes: 65536, 64KiB"),
        ("size", "-1", "expected bytes"),
        ("wait", "3 weeks", "expected a time: 250ms, 30s"),
        ("cooldowns", "maybe", "on or off"),
        ("level", "middle", "one of low, high"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path: Path, name: str, text: str, reason: str) -> None:
    by_env = refused(tmp_path, env={f"HEADRACE_BROKER__{name.upper()}": text})
    assert by_env.place == f"HEADRACE_BROKER__{name.upper()}"
    assert reason in by_env.reason
    assert refused(tmp_path, flags={name: text}).place == f"--{name}"


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("[broker]\nport = '80'\n", "broker.port", ""),
        ("[broker]\nprot = 80\n", "[broker]", "no setting 'prot'; did you mean 'port'?"),
        ("[brokker]\nport = 80\n", "headrace.toml", "no table 'brokker'; did you mean 'broker'?"),
        ("[broker]\nxyz = 80\n", "[broker]", "known are port, data"),
        ("broker = 1\n", "broker", "must be a table"),
        ("[broker\n", "headrace.toml", "line 1"),
        ("[broker]\nport = true\n", "broker.port", "expected `int`"),
        ("[broker]\nsize = true\n", "broker.size", "expected `int`"),
        ("[broker]\ncooldowns = 1\n", "broker.cooldowns", "on or off"),
        ("[broker]\nallow_host = [1]\n", "broker.allow_host", "expected `str`"),
        ("[broker]\ndata = ''\n", "broker.data", "expected text"),
    ],
)
def test_a_files_error_names_its_place(tmp_path: Path, content: str, place: str, reason: str) -> None:
    (tmp_path / "headrace.toml").write_text(content)
    if not reason:  # a number may be written as text
        assert read(tmp_path).settings.port == 80
        return
    error = refused(tmp_path)
    assert place in error.place
    assert reason in error.reason


def test_an_unknown_variable_of_the_section_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, env={"HEADRACE_BROKER__PROT": "1"})
    assert "did you mean 'HEADRACE_BROKER__PORT'?" in error.reason


@given(st.text(max_size=12))
def test_units_parse_or_raise_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@given(st.integers(0, 2**40))
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(str(size)) == parse_size(f"{size} B") == size
    assert parse_size(f"{size}KiB") == size * 1_024


# ------------------------------------------------------------------------------------------------------- description


def test_describe_names_flag_variable_kind_and_default() -> None:
    described = {one.name: one for one in describe(BrokerSettings, "broker")}
    assert list(described) == [field.name for field in msgspec.structs.fields(BrokerSettings)]
    assert all(one.help.endswith(".") for one in described.values())
    host = described["allow_host"]
    assert (host.flag, host.variable, host.repeated) == ("--allow-host", "HEADRACE_BROKER__ALLOW_HOST", True)
    assert described["behind_proxy"].switch
    assert (described["cooldowns"].kind, described["cooldowns"].default) == ("on|off", "on")
    assert (described["drain"].kind, described["drain"].default) == ("time", "10s")
    assert (described["request_max"].kind, described["request_max"].default) == ("size", "")
    assert described["log_format"].kind == "auto|text|json"
    assert (described["keys"].kind, described["keys"].default) == ("path", "")


# ---------------------------------------------------------------------------------------------------------- exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "a.localhost"])
def test_loopback_needs_neither_keys_nor_tls(host: str) -> None:
    assert is_loopback(host)
    check(BrokerSettings(host=host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.0.2.1", "broker.example", "localhost.example", "127.0.0.1.nip.io"]
)
def test_elsewhere_keys_and_tls_are_required(host: str) -> None:
    keys, pem = Path("keys"), Path("pem")
    for settings, flag in (
        (BrokerSettings(host=host), "--keys"),
        (BrokerSettings(host=host, behind_proxy=True), "--keys"),
        (BrokerSettings(host=host, certfile=pem, keyfile=pem), "--keys"),
        (BrokerSettings(host=host, keys=keys), "--behind-proxy"),
    ):
        with pytest.raises(SettingsError, match=flag):
            check(settings)
    check(BrokerSettings(host=host, keys=keys, behind_proxy=True))
    check(BrokerSettings(host=host, keys=keys, certfile=pem, keyfile=pem))


def test_certificate_and_key_come_together() -> None:
    with pytest.raises(SettingsError, match="--certfile: needs --keyfile"):
        check(BrokerSettings(certfile=Path("pem")))
    with pytest.raises(SettingsError, match="--keyfile: needs --certfile"):
        check(BrokerSettings(keyfile=Path("pem")))


@pytest.mark.parametrize("host", ["*", "", "a.example:80", "http://a.example", "a b", "[::1]:80"])
def test_an_allowed_host_is_a_name_without_port(host: str) -> None:
    with pytest.raises(SettingsError, match="--allow-host"):
        check(BrokerSettings(allow_host=("fine.example", host)))
    check(BrokerSettings(allow_host=("fine.example", "192.0.2.1", "[2001:db8::1]")))


def test_strangers_may_not_send_the_longest_bodies() -> None:
    assert request_bytes_max(BrokerSettings()) == 96 * 2**20
    assert request_bytes_max(BrokerSettings(host="192.0.2.1")) == 8 * 2**20
    assert request_bytes_max(BrokerSettings(host="192.0.2.1", request_max=Size(2**24))) == 2**24


PARTS = """
[broker]
port = 1
wait = "3s"
[broker.main]
port = 2
[broker.side-by-side]
level = "low"
[[broker.parts]]
path = "a"
"""


def test_a_service_inherits_what_its_section_says_and_may_say_otherwise(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(PARTS)

    def part(name: str) -> Resolved[Example]:
        return resolve(Example, "broker", flags={}, environ={"HEADRACE_SERVICE": name}, folder=tmp_path)

    assert (part("broker.main").settings.port, part("broker.main").settings.wait) == (2, 3.0)
    assert part("broker.main").origins["port"].endswith("headrace.toml: broker.main.port")
    assert (part("broker.side-by-side").settings.port, part("broker.side-by-side").settings.level) == (1, "low")
    assert part("web.shop").settings.port == part("").settings.port == 1  # another command's part, and none


def test_names_of_services_are_the_tables_that_are_no_settings(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(PARTS)
    tables = settings_file.read(tmp_path / "headrace.toml")
    assert settings_file.names_of(tables, "broker", ["port", "parts"]) == ["main", "side-by-side"]
    assert settings_file.names_of(tables, "web", []) == []


def test_a_service_that_is_not_in_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(PARTS)
    with pytest.raises(SettingsError, match=r"no table \[broker.mian\]"):
        resolve(Example, "broker", flags={}, environ={"HEADRACE_SERVICE": "broker.mian"}, folder=tmp_path)


def test_a_service_with_an_odd_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('[broker."a b"]\nport = 1\n')
    with pytest.raises(SettingsError, match="letters, digits"):
        resolve(Example, "broker", flags={}, environ={}, folder=tmp_path)
