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
from varde.subjects import (
    BLOBS,
    BLOBS_SUBJECTS,
    BROKER_STUCK,
    PART_ANSWERS,
    PARTS_ASKED,
    PARTS_WANTED,
    PULSES_IN,
    ROSTER_GET,
    ROSTER_UPDATE,
    peer_permissions,
    pulse_out,
    reply_prefix,
)

AUTHORIZATION_TIMEOUT_SECONDS: Final = 3
_HOME_ACCOUNT: Final = "NODE"
_ANSWERS_TO_PEERS: Final = "_R_.>"
"""What the server makes of the reply subject of a request from another account. Its ``allow_responses`` would be narrower,
but forgets the requests that are under way whenever the configuration is loaded anew."""


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
    """The text of ``access.conf``: our gateway and relay in one account, each peer in an account of its own.

    nats-server does not check where a request asks its answer to be sent. In one common account a peer could have its
    own deliveries, or the broker's "no messages", published into our INBOX as if from another nation. In an account of
    its own there is nothing that such an answer could reach.
    """
    relay = _user(
        local.relay,
        f"the relay of {me}",
        [
            "in.>",
            PULSES_IN,
            ROSTER_GET,
            f"$JS.API.DIRECT.GET.{BLOBS}.{BLOBS_SUBJECTS}",
            f"{PART_ANSWERS}.>",
            _ANSWERS_TO_PEERS,
        ],
        [ROSTER_UPDATE, PARTS_WANTED, PARTS_ASKED, BROKER_STUCK, f"{reply_prefix(me)}.>"],
    )
    exports: list[str] = []
    accounts: list[str] = []
    for peer in peers(trust, me):
        publish, subscribe = peer_permissions(peer)
        exports += [_export(subject, peer) for subject in publish]
        exports.append(
            f"      {{ stream: {_quoted(pulse_out(peer))}, accounts: [{_account(peer)}] }}"
        )
        user = _user(trust.current.members[peer].relay, f"the relay of {peer}", publish, subscribe)
        imports = "\n".join(
            f"      {{ service: {{ account: {_HOME_ACCOUNT}, subject: {_quoted(each)} }} }}"
            for each in publish
        )
        imports += f"\n      {{ stream: {{ account: {_HOME_ACCOUNT}, subject: {_quoted(pulse_out(peer))} }} }}"
        accounts.append(
            f"  {_account(peer)}: {{\n    users: [\n{user}\n    ]\n"
            f"    imports: [\n{imports}\n    ]\n  }}"
        )
    exported, others = "\n".join(exports), "\n".join(accounts)
    return f"""\
# Generated from roster {trust.current.version}; the relay of {me} rewrites it.
authorization {{ timeout: {AUTHORIZATION_TIMEOUT_SECONDS} }}
accounts {{
  {_HOME_ACCOUNT}: {{
    jetstream: enabled
    users: [
      {{ nkey: {_quoted(local.gateway)} }} # the gateway of {me}
{relay}
    ]
    exports: [
{exported}
    ]
  }}
{others}
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
        f"      {{ nkey: {_quoted(nkey)}, permissions: {{ # {who}\n"
        f"          publish: {{ allow: {json.dumps(publish)} }}\n"
        f"          subscribe: {{ allow: {json.dumps(subscribe)} }} }} }}"
    )


def _export(subject: str, peer: Nation) -> str:
    # One request for messages has many answers; an acknowledgement has none.
    answers = "stream" if subject.startswith("$JS.API.") else "singleton"
    return (
        f"      {{ service: {_quoted(subject)}, response_type: {answers},"
        f" accounts: [{_account(peer)}] }}"
    )


def _account(peer: Nation) -> str:
    return f"PEER_{peer}"


def _quoted(value: str | PurePath) -> str:
    return json.dumps(str(value))
