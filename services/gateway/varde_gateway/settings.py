"""The gateway's settings: ``node.toml`` in the node's home, and ``VARDE_`` variables over it. Read once, at start.

Paths are relative to the home. What is wrong is said with the member's name and what to write instead. Secrets are
never settings: the passphrase stands in a file of its own.
"""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from varde.errors import Malformed, VardeError
from varde.identifiers import parse_federation_id, parse_nation
from varde.note import KeyType, parse_vkey
from varde_gateway.private_files import ExposedFileError, read_private

SETTINGS_FILE: Final = "node.toml"
ENVIRONMENT_PREFIX: Final = "VARDE_"
_PASSWORD: Final = re.compile(r"(?<=:)(//[^:/@]*:)[^@]*(?=@)|([?&](?:ssl)?password=)[^&]*")
"""Where SQLAlchemy's and libpq's URLs hold a password; SQLAlchemy itself is too slow to load for each command."""
_NO_FEDERATION: Final = "A" * 43
_PATHS: Final = ("broker_ca", "gateway_nkey", "keystore", "passphrase_file", "rosters_file")


class SettingsError(Exception):
    """A setting is missing or wrong; the text names each and says what to do."""


def _parsed_by(parse: Callable[[Any], str]) -> AfterValidator:
    def check(value: str) -> str:
        try:
            return parse(value)
        except VardeError as error:
            raise ValueError(error.detail) from error

    return AfterValidator(check)


NationText = Annotated[str, _parsed_by(parse_nation)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]


def _parse_witness_key(text: str) -> str:
    if parse_vkey(text).type is KeyType.ED25519:
        raise Malformed("this is the key of a log; a witness's has the type 0x04 or 0x06")
    return text


class OutsideWitness(BaseModel):
    """A C2SP tlog-witness outside the federation: its vkey, and the URL before ``/add-checkpoint``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, _parsed_by(_parse_witness_key)]
    url: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")]


class GatewaySettings(BaseSettings):
    """One nation's gateway; all paths absolute once loaded."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    home: Path
    nation: NationText
    name: Annotated[str, Field(min_length=1, max_length=128)]
    genesis: Annotated[str, _parsed_by(parse_federation_id)]

    http_host: str = "127.0.0.1"
    http_port: Port = 18400
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: Annotated[str, Field(pattern=r"^(sqlite:///.+|postgresql\+psycopg://.+)$")] = (
        "sqlite:///varde.db"
    )
    broker_url: Annotated[str, Field(pattern=r"^tls://[^/?#@\s]+:[1-9][0-9]{0,4}$")]
    broker_ca: Path = Path("broker/ca.crt")
    gateway_nkey: Path = Path("gateway.nk")
    keystore: Path = Path("keystore.json")
    passphrase_file: Path = Path("passphrase")
    rosters_file: Path = Path("rosters.json")

    access_token_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 60
    max_document_life_hours: Annotated[int, Field(ge=1, le=7 * 24)] = 24
    receipt_retry_seconds: Annotated[int, Field(ge=1, le=3600)] = 10

    deadline_extreme_seconds: Seconds = 120
    deadline_severe_seconds: Seconds = 300
    deadline_moderate_seconds: Seconds = 1800
    deadline_minor_seconds: Seconds = 7200
    deadline_unknown_seconds: Seconds = 7200

    retention_days: Annotated[int, Field(ge=1, le=100 * 366)] | None = None
    retention_needs_archive: bool = False
    erase_by_two: bool = False

    outside_witnesses: tuple[OutsideWitness, ...] = ()

    sensor_requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    sensor_body_bytes: Annotated[int, Field(ge=1024, le=1024**2)] = 256 * 1024
    webhook_tolerance_seconds: Annotated[int, Field(ge=10, le=3600)] = 300

    @property
    def deadline_seconds(self) -> dict[str, int]:
        """Until when an alert must be acknowledged, by CAP severity."""
        return {
            "Extreme": self.deadline_extreme_seconds,
            "Severe": self.deadline_severe_seconds,
            "Moderate": self.deadline_moderate_seconds,
            "Minor": self.deadline_minor_seconds,
            "Unknown": self.deadline_unknown_seconds,
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over ``node.toml``; there is no third source."""
        del dotenv_settings, file_secret_settings
        file = Path(init_settings()["home"]) / SETTINGS_FILE
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @model_validator(mode="after")
    def _tell_witnesses_apart(self) -> Self:
        names = [parse_vkey(each.key).name for each in self.outside_witnesses]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"outside_witnesses: {', '.join(sorted(twice))} stands there twice")
        return self

    @model_validator(mode="after")
    def _make_paths_absolute(self) -> Self:
        for name in _PATHS:
            object.__setattr__(self, name, self.home / getattr(self, name))
        scheme, found, place = self.database_url.partition("sqlite:///")
        if found and not scheme:
            object.__setattr__(self, "database_url", f"sqlite:///{self.home / place}")
        return self

    def describe(self) -> dict[str, str]:
        """Every setting and its value as text, for the audit log: without the password of a database."""
        values = self.model_dump(mode="json")
        values["database_url"] = _PASSWORD.sub(r"\1\2***", self.database_url)
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
        }

    def read_passphrase(self) -> SecretStr:
        """The passphrase of the keystore, from its own file; ``SettingsError`` where that does not work."""
        try:
            raw = read_private(self.passphrase_file)
        except ExposedFileError as error:
            raise SettingsError(str(error)) from None
        except OSError as error:
            raise SettingsError(
                f"The passphrase cannot be read from {self.passphrase_file} ({error.strerror}). "
                f"Put it there with mode 0600, or name its file in 'passphrase_file' or VARDE_PASSPHRASE_FILE."
            ) from None
        passphrase = SecretStr(raw.decode("utf-8", "surrogateescape").removesuffix("\n"))
        if not passphrase.get_secret_value().isprintable() or not passphrase:
            raise SettingsError(
                f"{self.passphrase_file} must hold the passphrase as one line of UTF-8 text."
            )
        return passphrase


def load_settings(home: Path) -> GatewaySettings:
    """The settings of one home, or ``SettingsError`` naming everything that is wrong."""
    return _load(home.resolve())


def load_unjoined(home: Path) -> GatewaySettings:
    """The settings of a home that may belong to no federation yet: its ``genesis`` is then all zeros."""
    return _load(home.resolve(), genesis=_NO_FEDERATION)


def _load(home: Path, **given: Any) -> GatewaySettings:
    file = home / SETTINGS_FILE
    if not file.is_file():
        raise SettingsError(
            f"{home} is not the home of a node: there is no {SETTINGS_FILE} in it. "
            f"Make one with 'varde init', or a whole federation with 'varde demo'."
        )
    try:
        return GatewaySettings(home=home, **given)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from None
    except ValidationError as error:
        lines = [_describe(each["loc"], each["type"], each["msg"]) for each in error.errors()]
        raise SettingsError(
            f"{file} (or a {ENVIRONMENT_PREFIX} variable over it) is wrong:\n" + "\n".join(lines)
        ) from None


def _describe(place: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(each) for each in place) or "node.toml"
    match kind:
        case "missing" if name == "genesis":
            return (
                "  genesis: is missing, so this node belongs to no federation yet; "
                "join one with 'varde roster apply'"
            )
        case "missing":
            return f"  {name}: is missing; add a line '{name} = ...'"
        case "extra_forbidden":
            return f"  {name}: is not a setting; remove it or correct its name"
        case _:
            return f"  {name}: {message.removeprefix('Value error, ')}"
