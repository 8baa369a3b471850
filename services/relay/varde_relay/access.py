"""Who may do what at our broker, and the broker's own configuration, as the text that nats-server reads.

Pure: values in, text out. Deny is the default everywhere; a nation that is suspended, or not on the roster, simply has
no user, so that the broker ends its connection at the next reload. Protocol section 8.1.
"""

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from varde.identifiers import Nation
from varde.roster import Trust
from varde.subjects import peer_permissions, reply_prefix

ROSTER_GET: Final = "node.roster.get"
ROSTER_UPDATE: Final = "node.roster.update"
AUTHORIZATION_TIMEOUT_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class LocalUsers:
    """The public NKeys of our own gateway and relay."""

    gateway: str
    relay: str


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """Where the broker listens and keeps its files; ``sync_always`` makes every stored message wait for the disk."""

    nation: Nation
    host: str
    port: int
    certificate_file: PurePath
    key_file: PurePath
    store_dir: PurePath
    pid_file: PurePath
    access_file: PurePath
    max_store_bytes: int
    sync_always: bool


def peers(trust: Trust, me: Nation) -> list[Nation]:
    """The other nations on the roster that we have not suspended, sorted."""
    return sorted(each for each in trust.current.members if each not in {me, *trust.suspended})


def access_config(trust: Trust, me: Nation, local: LocalUsers) -> str:
    """The text of ``access.conf``: the gateway, our relay, and one user per peer, each with exactly its permissions."""
    users = [
        f"    {{ nkey: {_quoted(local.gateway)} }} # the gateway of {me}",
        _user(
            local.relay,
            f"the relay of {me}",
            ["in.>", ROSTER_GET],
            [ROSTER_UPDATE, f"{reply_prefix(me)}.>"],
        ),
    ]
    for peer in peers(trust, me):
        publish, subscribe = peer_permissions(peer)
        relay = trust.current.members[peer].relay
        users.append(_user(relay, f"the relay of {peer}", publish, subscribe))
    lines = "\n".join(users)
    return f"""\
# Generated from roster {trust.current.version}; the relay of {me} rewrites it.
authorization {{
  timeout: {AUTHORIZATION_TIMEOUT_SECONDS}
  users: [
{lines}
  ]
}}
"""


def broker_config(place: BrokerPlace) -> str:
    """The text of ``nats.conf``.

    No monitoring port, no user without a key, no plain text: TLS begins before the first byte of NATS.
    """
    sync = "\n  sync_interval: always" if place.sync_always else ""
    return f"""\
# Generated for the broker of {place.nation}.
server_name: {_quoted(f"varde-{place.nation}")}
host: {_quoted(place.host)}
port: {place.port}
pid_file: {_quoted(place.pid_file)}
max_payload: 1MB
max_control_line: 4KB
max_connections: 256
max_subscriptions: 1024
max_pending: 64MB
write_deadline: "5s"
ping_interval: "2s"
ping_max: 2
logtime_utc: true
tls {{
  cert_file: {_quoted(place.certificate_file)}
  key_file: {_quoted(place.key_file)}
  min_version: "1.3"
  handshake_first: true
  timeout: 3
}}
jetstream {{
  store_dir: {_quoted(place.store_dir)}
  max_memory_store: 16MB
  max_file_store: {place.max_store_bytes}{sync}
}}
include {_quoted(place.access_file)}
"""


def _user(nkey: str, who: str, publish: list[str], subscribe: list[str]) -> str:
    return (
        f"    {{ nkey: {_quoted(nkey)}, permissions: {{ # {who}\n"
        f"        publish: {{ allow: {json.dumps(publish)} }}\n"
        f"        subscribe: {{ allow: {json.dumps(subscribe)} }} }} }}"
    )


def _quoted(value: str | PurePath) -> str:
    return json.dumps(str(value))
