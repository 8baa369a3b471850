"""The relay's settings: ``relay.toml`` in its home, and ``VARDE_RELAY_`` variables over it. Nothing else is read.

Paths are relative to the home. The relay holds one secret, its NKey seed; no message key is ever configured here.
"""

import os.path
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from varde.errors import VardeError
from varde.identifiers import FederationId, Nation, parse_federation_id, parse_nation
from varde_relay.access import BrokerPlace, LocalUsers

SETTINGS_FILE: Final = "relay.toml"


def _parsed_by(parse: Callable[[Any], str]) -> AfterValidator:
    def check(value: str) -> str:
        try:
            return parse(value)
        except VardeError as error:
            raise ValueError(error.detail) from error

    return AfterValidator(check)


NationText = Annotated[str, _parsed_by(parse_nation)]
BrokerUrl = Annotated[str, Field(pattern=r"^tls://[^/?#@\s]+:[1-9][0-9]{0,4}$")]
PublicUser = Annotated[str, Field(pattern=r"^U[A-Z2-7]{55}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class BrokerSettings(BaseModel):
    """Our own broker's files and limits; used by ``access`` and ``broker``, and to make it read its access list.

    ``restart_stuck`` ends a broker that stores nothing any more; whoever runs it must start it again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Port
    config_file: Path = Path("../broker/nats.conf")
    access_file: Path = Path("../broker/access.conf")
    certificate_file: Path = Path("../broker/server.crt")
    key_file: Path = Path("../broker/server.key")
    ca_file: Path = Path("../broker/ca.crt")
    store_dir: Path = Path("../broker/store")
    pid_file: Path = Path("../broker/nats.pid")
    max_store_bytes: int = Field(default=8 * 1024**3, ge=1024**2)
    sync_always: bool = False
    restart_stuck: bool = True


class Settings(BaseSettings):
    """One nation's relay. ``links`` replaces the address of a peer's broker, not the name its certificate must have."""

    model_config = SettingsConfigDict(
        env_prefix="VARDE_RELAY_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    home: Path
    nation: NationText
    genesis: Annotated[str, _parsed_by(parse_federation_id)]
    gateway_nkey: PublicUser
    broker_url: BrokerUrl
    broker: BrokerSettings
    nkey_file: Path = Path("relay.nk")
    rosters_file: Path = Path("rosters.json")
    health_host: str = "127.0.0.1"
    health_port: Port
    links: dict[NationText, BrokerUrl] = {}
    fetch_batch: int = Field(default=256, ge=1, le=1024)
    fetch_wait_seconds: float = Field(default=10.0, ge=0.1, le=60)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over ``relay.toml``; there is no third source."""
        del dotenv_settings, file_secret_settings
        home = Path(init_settings()["home"])
        file = TomlConfigSettingsSource(settings_cls, toml_file=home / SETTINGS_FILE)
        return init_settings, env_settings, file

    @property
    def me(self) -> Nation:
        """Our nation."""
        return parse_nation(self.nation)

    @property
    def federation(self) -> FederationId:
        """The fingerprint of the genesis roster, agreed out of band."""
        return parse_federation_id(self.genesis)

    def path(self, configured: Path) -> Path:
        """A configured path, from the home."""
        return (self.home / configured).resolve()

    def nkey_seed(self) -> str:
        """The seed with which the relay signs in, at home and abroad."""
        return self.path(self.nkey_file).read_text("ascii").strip()

    def local_users(self, relay_nkey: str) -> LocalUsers:
        """The two users of our own nation."""
        return LocalUsers(self.gateway_nkey, relay_nkey)

    def broker_place(self) -> BrokerPlace:
        """What ``nats.conf`` says; nats-server takes an include only relative to the including file."""
        broker = self.broker
        config = self.path(broker.config_file)
        return BrokerPlace(
            nation=self.me,
            host=broker.host,
            port=broker.port,
            certificate_file=self.path(broker.certificate_file),
            key_file=self.path(broker.key_file),
            store_dir=self.path(broker.store_dir),
            pid_file=self.path(broker.pid_file),
            access_file=PurePath(os.path.relpath(self.path(broker.access_file), config.parent)),
            max_store_bytes=broker.max_store_bytes,
            sync_always=broker.sync_always,
        )


def load_settings(home: Path) -> Settings:
    """The settings of one home; pydantic's ``ValidationError`` names each wrong member."""
    # The rest comes from the file and the environment.
    return Settings.model_validate({"home": home.resolve()})
