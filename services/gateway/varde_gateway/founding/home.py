"""A node's home: every file of one node, made in an empty directory before the node belongs to a federation.

``found_node`` makes keys, certificates and settings, and the seat that the other members vote for; ``join_federation``
adds the voted roster and its fingerprint. Only then can the node start. The broker's own configuration is the relay's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from varde.checkpoint import LogSigner, WitnessSigner
from varde.encoding import (
    Json,
    JsonObject,
    encode_base64,
    encode_base64url,
    format_json,
    parse_json,
)
from varde.identifiers import FederationId, Nation
from varde.member import Member, Standing, format_member, parse_member
from varde.note import format_vkey
from varde.roster import (
    Roster,
    accept_genesis,
    extend_chain,
    parse_roster_payload,
    parse_voted_roster,
)
from varde_gateway.founding.nkeys import NKeyUser, make_nkey_user
from varde_gateway.founding.pki import make_ca, make_server_certificate
from varde_gateway.keyring import Keyring, create_keystore, generate_passphrase
from varde_gateway.private_files import create_private, write_private

SETTINGS_FILE: Final = "node.toml"
MEMBER_FILE: Final = "member.json"
BOOTSTRAP_FILE: Final = "bootstrap.json"
ROLES: Final = ("operator", "officer", "approver", "auditor", "admin")
_PASSWORD_BYTES: Final = 18
_SENSOR_SECRET_BYTES: Final = 32
_LOOPBACK: Final = ("127.0.0.1", "localhost")


class FoundingError(Exception):
    """A home cannot be made or completed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Where one node lives and listens; ``broker_address`` is the ``host:port`` at which peers reach its broker."""

    nation: Nation
    name: str
    home: Path
    broker_address: str
    http_port: int
    broker_port: int
    relay_port: int
    http_host: str = "127.0.0.1"
    broker_host: str = "127.0.0.1"
    federation_name: str = "varde"
    standing: Standing = Standing.MEMBER

    @property
    def broker_url(self) -> str:
        """The own broker as gateway and relay reach it."""
        wildcard = self.broker_host in ("", "0.0.0.0", "::")  # noqa: S104 -- compared, not bound
        host = "127.0.0.1" if wildcard else self.broker_host
        return f"tls://{host}:{self.broker_port}"

    @property
    def log_origin(self) -> str:
        """The name of the audit log. The roster holds it, so it cannot hold the federation's id."""
        return f"{self.federation_name}.{self.nation.lower()}/log"

    @property
    def witness_name(self) -> str:
        """The name under which it cosigns the logs of the others."""
        return f"{self.federation_name}.{self.nation.lower()}/witness"


@dataclass(frozen=True, slots=True)
class User:
    """A person's first sign-in; the password is generated."""

    username: str
    password: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A machine's first sign-in; the secret in the form of Standard Webhooks."""

    id: str
    secret: str
    name: str


@dataclass(frozen=True, slots=True)
class FoundedNode:
    """What was made; ``keyring`` is open so that the node can vote at once."""

    plan: NodePlan
    member: Member
    keyring: Keyring
    users: tuple[User, ...]
    sensors: tuple[Sensor, ...]


def found_node(
    plan: NodePlan,
    *,
    passphrase: SecretStr | None,
    sensors: tuple[str, ...],
    now: datetime,
    random: Callable[[int], bytes],
) -> FoundedNode:
    """Make the home; ``FoundingError`` where a node lives there already.

    Without a ``passphrase`` one of 256 bits is made and kept beside the keystore in its own file. ``sensors`` are names.
    """
    home = plan.home
    if (home / SETTINGS_FILE).exists() or (home / "keystore.json").exists():
        raise FoundingError(f"{home} is the home of a node already. Choose another directory.")
    for directory in (
        home,
        home / "relay",
        home / "broker",
        home / "broker" / "store",
        home / "logs",
    ):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    generated = passphrase is None
    passphrase = passphrase or generate_passphrase(random)
    if generated:
        create_private(home / "passphrase", passphrase.get_secret_value().encode() + b"\n")
    keyring = create_keystore(
        home / "keystore.json", plan.nation, passphrase, generated=generated, random=random
    )
    gateway_user, relay_user = make_nkey_user(random(32)), make_nkey_user(random(32))
    create_private(home / "gateway.nk", gateway_user.seed.encode() + b"\n")
    create_private(home / "relay" / "relay.nk", relay_user.seed.encode() + b"\n")
    ca_der = _write_certificates(plan, now)
    member = Member(
        nation=plan.nation,
        standing=plan.standing,
        name=plan.name,
        broker=f"tls://{plan.broker_address}",
        ca=ca_der,
        relay=relay_user.public,
        log=LogSigner(plan.log_origin, keyring.log, keyring.log_ml_dsa_44).key,
        witness=format_vkey(WitnessSigner(plan.witness_name, keyring.witness).key),
        signing_keys=keyring.message.public,
        voting_keys=None if plan.standing is Standing.OBSERVER else keyring.voting[0].public,
    )
    users = tuple(_make_user(role, plan.nation, random) for role in ROLES)
    made_sensors = tuple(_make_sensor(name, plan.nation, random) for name in sensors)
    write_private(home / BOOTSTRAP_FILE, format_json(_format_bootstrap(users, made_sensors)))
    write_private(home / MEMBER_FILE, format_json(format_member(member)) + b"\n")
    write_private(home / "relay" / "relay.toml", _relay_toml(plan, gateway_user).encode())
    # Last: a home without it is unfinished, and no command takes it for a node.
    write_private(home / SETTINGS_FILE, _node_toml(plan).encode())
    return FoundedNode(plan, member, keyring, users, made_sensors)


def join_federation(home: Path, nation: Nation, voted: bytes, fingerprint: FederationId) -> None:
    """Put the voted first roster into the home; ``VardeError`` where it is not the one of ``fingerprint``.

    The node's own seat must be in it exactly as ``found_node`` wrote it.
    """
    roster = accept_genesis(parse_voted_roster(voted), fingerprint)
    if not _has_own_seat(home, roster, nation):
        raise FoundingError(
            f"The roster does not hold the seat of {nation} as {home / MEMBER_FILE} has it. "
            f"Send that file to whoever drafts the roster, and vote again."
        )
    _write_federation(home, [voted], fingerprint)


def join_running_federation(
    home: Path, nation: Nation, chain: Sequence[bytes], fingerprint: FederationId, now: int
) -> int:
    """Put a running federation's rosters into a new home; the newest version. ``VardeError`` where the chain breaks.

    The nation is voted in later, or was already, with the seat of this home.
    """
    added = extend_chain([], chain, fingerprint, now)
    if not added:
        raise FoundingError("There is no roster in the file.")
    newest = added[-1][0]
    if nation in newest.members and not _has_own_seat(home, newest, nation):
        raise FoundingError(
            f"The federation knows {nation} with another seat than {home / MEMBER_FILE}. Restore the home of that seat, "
            f"or let the members vote for this one."
        )
    _write_federation(home, [raw for _, raw in added], fingerprint)
    return newest.version


def seat_in_force(home: Path, nation: Nation) -> Member:
    """The seat that the newest roster of this home has, or the one that it asks for; ``OSError``, ``Malformed``.

    The relay's copy of the rosters is the newest: what the gateway accepts, it tells the relay.
    """
    copies = [
        path for path in (home / "relay" / "rosters.json", home / "rosters.json") if path.exists()
    ]
    for path in copies:
        newest = json.loads(path.read_bytes())["rosters"][-1]
        roster = parse_roster_payload(parse_voted_roster(newest.encode()).payload)
        if nation in roster.members:
            return roster.members[nation]
    raw = (home / MEMBER_FILE).read_bytes()
    return parse_member(parse_json(raw, limit=len(raw)))


def _has_own_seat(home: Path, roster: Roster, nation: Nation) -> bool:
    own = roster.members.get(nation)
    seat = (home / MEMBER_FILE).read_bytes()
    return own is not None and format_json(format_member(own)) + b"\n" == seat


def _write_federation(home: Path, chain: Sequence[bytes], fingerprint: FederationId) -> None:
    settings = [home / SETTINGS_FILE, home / "relay" / "relay.toml"]
    texts = [path.read_text("utf-8") for path in settings]
    if any(line.startswith("genesis = ") for line in texts[0].splitlines()):
        raise FoundingError(f"{home} belongs to a federation already.")
    rosters: list[Json] = [each.decode() for each in chain]
    write_private(home / "rosters.json", format_json({"rosters": rosters}))
    write_private(
        home / "relay" / "rosters.json",
        format_json({"rosters": rosters, "suspended": []}),
    )
    # The gateway's settings last: with the fingerprint in them the node can start.
    for path, text in reversed([*zip(settings, texts, strict=True)]):
        write_private(path, f"genesis = {_quoted(fingerprint)}\n{text}".encode())


def _write_certificates(plan: NodePlan, now: datetime) -> bytes:
    broker = plan.home / "broker"
    authority = make_ca(plan.nation, now)
    host = plan.broker_address.rpartition(":")[0]
    hosts = dict.fromkeys((host, plan.broker_host, *_LOOPBACK))
    hosts.pop("0.0.0.0", None)  # noqa: S104 -- no certificate for a wildcard
    hosts.pop("::", None)
    server = make_server_certificate(authority, hosts, now)
    certificate = x509.load_der_x509_certificate(authority.certificate_der)
    create_private(broker / "ca.key", authority.key_pem)
    create_private(broker / "ca.crt", certificate.public_bytes(Encoding.PEM))
    create_private(broker / "server.crt", server.certificate_pem)
    create_private(broker / "server.key", server.key_pem)
    return authority.certificate_der


def _make_user(role: str, nation: Nation, random: Callable[[int], bytes]) -> User:
    return User(f"{role}.{nation.lower()}", encode_base64url(random(_PASSWORD_BYTES)), (role,))


def _make_sensor(name: str, nation: Nation, random: Callable[[int], bytes]) -> Sensor:
    secret = "whsec_" + encode_base64(random(_SENSOR_SECRET_BYTES))
    return Sensor(f"{name}-{nation.lower()}", secret, f"{name.capitalize()} of {nation}")


def _format_bootstrap(users: tuple[User, ...], sensors: tuple[Sensor, ...]) -> JsonObject:
    listed: list[Json] = [
        {"username": each.username, "password": each.password, "roles": [*each.roles]}
        for each in users
    ]
    machines: list[Json] = [
        {"id": each.id, "secret": each.secret, "name": each.name} for each in sensors
    ]
    return {"users": listed, "sensors": machines}


def _node_toml(plan: NodePlan) -> str:
    return f"""\
# One node of Varde. Paths are relative to this directory; VARDE_<NAME> in the environment wins over a line here.
nation = {_quoted(plan.nation)}
name = {_quoted(plan.name)}
http_host = {_quoted(plan.http_host)}
http_port = {plan.http_port}
broker_url = {_quoted(plan.broker_url)}
broker_ca = "broker/ca.crt"
gateway_nkey = "gateway.nk"
database_url = "sqlite:///varde.db"
keystore = "keystore.json"
passphrase_file = "passphrase"
rosters_file = "rosters.json"
"""


def _relay_toml(plan: NodePlan, gateway_user: NKeyUser) -> str:
    return f"""\
# The relay of this node. Paths are relative to this directory; VARDE_RELAY_<NAME> wins over a line here.
nation = {_quoted(plan.nation)}
gateway_nkey = {_quoted(gateway_user.public)}
broker_url = {_quoted(plan.broker_url)}
nkey_file = "relay.nk"
rosters_file = "rosters.json"
health_host = "127.0.0.1"
health_port = {plan.relay_port}

[broker]
host = {_quoted(plan.broker_host)}
port = {plan.broker_port}
"""


def _quoted(text: str) -> str:
    # A TOML basic string: JSON's escapes are TOML's, but TOML takes no DEL and no surrogate pair.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
