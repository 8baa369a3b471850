"""Settings: what a node's home must say, and what is told to somebody who got it wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from varde.note import KeyType, NoteKey, format_vkey
from varde_gateway.settings import GatewaySettings, SettingsError, load_settings, load_unjoined

GENESIS = "5QvxMj94K-CLYTKc1NNgqsTStHqurDnnnKLsf63AgcU"
NODE = f"""\
genesis = "{GENESIS}"
nation = "EE"
name = "Estonia"
broker_url = "tls://127.0.0.1:18401"
"""


def vkey_of(name: str, kind: KeyType) -> str:
    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    return format_vkey(NoteKey(name, kind, public))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path, NODE)
    return tmp_path.resolve()


def write(home: Path, text: str) -> None:
    (home / "node.toml").write_text(text)


def test_paths_are_relative_to_the_home(home: Path) -> None:
    settings = load_settings(home)
    assert settings.keystore == home / "keystore.json"
    assert settings.broker_ca == home / "broker" / "ca.crt"
    assert settings.database_url == f"sqlite:///{home}/varde.db"
    assert settings.home == home


def test_an_absolute_path_and_another_database_stay_as_they_are(home: Path) -> None:
    url = "postgresql+psycopg://varde@/varde"
    write(home, f'{NODE}passphrase_file = "/run/secrets/varde"\ndatabase_url = "{url}"\n')
    settings = load_settings(home)
    assert settings.passphrase_file == Path("/run/secrets/varde")
    assert settings.database_url == url


def test_the_deadlines_follow_the_severity(home: Path) -> None:
    write(home, f"{NODE}deadline_severe_seconds = 240\n")
    assert load_settings(home).deadline_seconds == {
        "Extreme": 120,
        "Severe": 240,
        "Moderate": 1800,
        "Minor": 7200,
        "Unknown": 7200,
    }


def test_the_environment_wins_over_the_file(home: Path) -> None:
    program = (
        "import pathlib, sys; from varde_gateway.settings import load_settings; "
        "print(load_settings(pathlib.Path(sys.argv[1])).http_port)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)],
        env={**os.environ, "VARDE_HTTP_PORT": "9999"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "9999\n"


def test_a_directory_without_settings_says_how_to_make_a_node(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is not the home of a node.*varde init"):
        load_settings(tmp_path)


def test_a_home_outside_of_any_federation_says_how_to_join_one(home: Path) -> None:
    write(home, NODE.partition("\n")[2])
    with pytest.raises(SettingsError, match="varde roster apply"):
        load_settings(home)
    assert load_unjoined(home).nation == "EE"


def test_everything_wrong_is_named_at_once(home: Path) -> None:
    write(
        home,
        f'genesis = "{GENESIS}"\nnation = "Estonia"\nhttp_port = 0\nhtpp_host = "x"\nbroker_url = "nats://h:1"\n',
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(home)
    text = str(caught.value)
    assert "name: is missing; add a line 'name = ...'" in text
    assert "nation: 'Estonia' is not a nation code such as EE" in text
    assert "http_port: " in text
    assert "htpp_host: is not a setting" in text
    assert "broker_url: " in text
    assert str(home / "node.toml") in text


def test_a_file_that_is_not_toml_is_named(home: Path) -> None:
    write(home, "nation = EE")
    with pytest.raises(SettingsError, match=r"node\.toml is not TOML"):
        load_settings(home)


@pytest.mark.parametrize(
    "url", ["mysql://x", "sqlite://", "/varde.db", "postgresql://varde@/varde"]
)
def test_a_database_that_varde_does_not_speak_to_is_refused(home: Path, url: str) -> None:
    write(home, f'{NODE}database_url = "{url}"\n')
    with pytest.raises(SettingsError, match="database_url"):
        load_settings(home)


def test_the_passphrase_is_read_without_its_line_end_and_never_shown(home: Path) -> None:
    file = home / "passphrase"
    file.touch(0o600)
    file.write_text("a long passphrase\n")
    passphrase = load_settings(home).read_passphrase()
    assert passphrase.get_secret_value() == "a long passphrase"
    assert "long" not in repr(passphrase)


def test_a_passphrase_that_others_may_read_is_refused(home: Path) -> None:
    (home / "passphrase").touch(0o600)
    (home / "passphrase").chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_settings(home).read_passphrase()


def test_a_missing_passphrase_says_where_to_put_it(home: Path) -> None:
    with pytest.raises(SettingsError, match="VARDE_PASSPHRASE_FILE"):
        load_settings(home).read_passphrase()


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe\n"])
def test_a_passphrase_file_with_something_else_in_it_is_refused(home: Path, content: bytes) -> None:
    (home / "passphrase").touch(0o600)
    (home / "passphrase").write_bytes(content)
    with pytest.raises(SettingsError, match="one line of UTF-8"):
        load_settings(home).read_passphrase()


WITNESS = vkey_of("witness.example", KeyType.ED25519_COSIGNATURE)


def witness_entry(key: str, url: str = "https://witness.example/w") -> str:
    return f'[[outside_witnesses]]\nkey = "{key}"\nurl = "{url}"\n'


def test_outside_witnesses_have_a_key_and_an_address(home: Path) -> None:
    write(home, NODE + witness_entry(WITNESS))
    [witness] = load_settings(home).outside_witnesses
    assert (witness.key, witness.url) == (WITNESS, "https://witness.example/w")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (witness_entry("witness.example+00000000+BAAA"), "outside_witnesses.0.key"),
        (witness_entry(vkey_of("a.example/log", KeyType.ED25519)), "this is the key of a log"),
        (witness_entry(WITNESS, "ftp://witness.example"), "outside_witnesses.0.url"),
        (witness_entry(WITNESS, "https://user:word@witness.example"), "outside_witnesses.0.url"),
        (witness_entry(WITNESS) * 2, "witness.example stands there twice"),
        (witness_entry(WITNESS) + "name = 'x'\n", "outside_witnesses.0.name"),
    ],
)
def test_a_wrong_outside_witness_is_named(home: Path, text: str, said: str) -> None:
    write(home, NODE + text)
    with pytest.raises(SettingsError, match=re.escape(said)):
        load_settings(home)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("://varde:hunter2@db/varde", "://varde:***@db/varde"),
        ("://varde:hunter2/&a:@db/varde", "://varde:***@db/varde"),
        ("://varde@db/varde?password=hunter2&sslmode=require", "://varde@db/varde?password=***&sslmode=require"),
        ("://varde@db/varde?a=b&sslpassword=hunter2", "://varde@db/varde?a=b&sslpassword=***"),
        ("://varde@db:5432/varde", "://varde@db:5432/varde"),
    ],
)  # fmt: skip
def test_a_description_names_every_setting_and_no_password(
    home: Path, url: str, shown: str
) -> None:
    write(home, f'{NODE}database_url = "postgresql+psycopg{url}"\n')
    told = load_settings(home).describe()
    assert told["nation"] == "EE"
    assert told["retention_days"] == "null"
    assert told["erase_by_two"] == "false"
    assert told["database_url"] == f"postgresql+psycopg{shown}"
    assert told.keys() == GatewaySettings.model_fields.keys()
