"""One seat on the roster: a nation or an observer, its keys by purpose, and where its broker is.

Protocol section 4.3. Every key has one purpose: message signing, voting (may stay offline), log,
witness of the others' logs, relay (NKey), TLS.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from varde.checkpoint import LogKey
from varde.encoding import (
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    require_string,
)
from varde.errors import Malformed, Reason
from varde.identifiers import Nation, parse_nation
from varde.keys import (
    ED25519,
    ED25519_PUBLIC_BYTES,
    ML_DSA_44,
    ML_DSA_65,
    ML_DSA_65_PUBLIC_BYTES,
    VerifyKeys,
    check_ed25519_public,
)
from varde.note import KeyType, format_vkey, parse_vkey

_MEMBERS: Final = frozenset(
    {"nation", "standing", "name", "broker", "ca", "relay", "log", "witness", "signing", "voting"}
)
_BROKER: Final = re.compile(
    r"tls://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\]):([1-9][0-9]{0,4})",
    re.ASCII,
)
_NKEY_USER: Final = re.compile(r"U[A-D][A-Z2-7]{54}", re.ASCII)
_MAX_CERTIFICATE_BYTES: Final = 4096
_MAX_PORT: Final = 65535
_MAX_VKEY_CHARACTERS: Final = 4096


class Standing(StrEnum):
    """A member votes; an observer does not."""

    MEMBER = "member"
    OBSERVER = "observer"


_STANDINGS: Final = tuple(Standing)


@dataclass(frozen=True, slots=True)
class Member:
    """One seat.

    ``broker`` is ``tls://host:port``; ``ca`` the DER certificate that its TLS certificate chains to; ``relay`` the
    public NKey of its relay; ``log`` the two keys of its audit log, ``witness`` the C2SP vkey with which it cosigns the
    logs of the others; ``voting_keys`` None for an observer.
    """

    nation: Nation
    standing: Standing
    name: str
    broker: str
    ca: bytes
    relay: str
    log: LogKey
    witness: str
    signing_keys: VerifyKeys
    voting_keys: VerifyKeys | None

    @property
    def log_name(self) -> str:
        """The origin of its audit log."""
        return self.log.name

    @property
    def witness_name(self) -> str:
        """The name under which it cosigns."""
        return parse_vkey(self.witness).name

    def key_bytes(self) -> list[bytes]:
        """Every public key of this seat, for the rule that none occurs twice."""
        pairs = [self.signing_keys, *([] if self.voting_keys is None else [self.voting_keys])]
        halves = [half for pair in pairs for half in (pair.ed25519, pair.ml_dsa_65)]
        notes = [each.public for each in (*self.log.both, parse_vkey(self.witness))]
        return [*halves, self.ca, nkey_public(self.relay), *notes]


def format_member(member: Member) -> JsonObject:
    """The member's JSON object."""
    voting = member.voting_keys
    return {
        "nation": member.nation,
        "standing": member.standing.value,
        "name": member.name,
        "broker": member.broker,
        "ca": encode_base64url(member.ca),
        "relay": member.relay,
        "log": _format_log(member.log),
        "witness": member.witness,
        "signing": _format_keys(member.signing_keys),
        "voting": None if voting is None else _format_keys(voting),
    }


def parse_member(value: Json) -> Member:
    """``Malformed`` (``BAD_ROSTER`` where a rule of the roster is broken), ``Untrusted`` as ``BAD_KEY`` for a weak key."""
    members = exact_members(value, _MEMBERS, "member")
    standing = members["standing"]
    if standing not in _STANDINGS:
        raise Malformed("the standing is neither member nor observer", Reason.BAD_ROSTER)
    if (standing == Standing.OBSERVER) != (members["voting"] is None):
        raise Malformed("members have voting keys, observers have none", Reason.BAD_ROSTER)
    ca = decode_base64url(members["ca"])
    if not 0 < len(ca) <= _MAX_CERTIFICATE_BYTES:
        raise Malformed("the CA certificate is empty or too large", Reason.BAD_ROSTER)
    name = require_string(members["name"], "name", most=128)
    if not name or not name.isprintable():
        raise Malformed("a member's name is empty or not printable", Reason.BAD_ROSTER)
    relay = require_string(members["relay"], "relay")
    check_ed25519_public(nkey_public(relay))
    witness = require_string(members["witness"], "witness")
    if parse_vkey(witness).type is not KeyType.ED25519_COSIGNATURE:
        raise Malformed("the witness's key is not a key that cosigns", Reason.BAD_ROSTER)
    return Member(
        nation=parse_nation(members["nation"]),
        standing=Standing(str(standing)),
        name=name,
        broker=_parse_broker(members["broker"]),
        ca=ca,
        relay=relay,
        log=_parse_log(members["log"]),
        witness=witness,
        signing_keys=_parse_keys(members["signing"]),
        voting_keys=None if members["voting"] is None else _parse_keys(members["voting"]),
    )


def nkey_public(text: str) -> bytes:
    """The 32 bytes of a public user NKey, its checksum verified.

    A broker refuses its whole access file for one wrong NKey in it, so none may enter the roster.
    """
    raw = base64.b32decode(text) if _NKEY_USER.fullmatch(text) is not None else b""
    if not raw or int.from_bytes(raw[-2:], "little") != binascii.crc_hqx(raw[:-2], 0):
        raise Malformed("the relay is not a public user NKey", Reason.BAD_ROSTER)
    return raw[1:-2]


def _parse_broker(value: Json) -> str:
    broker = require_string(value, "broker", most=300)
    match = _BROKER.fullmatch(broker)
    if match is None or int(match[1]) > _MAX_PORT:
        raise Malformed("the broker is not tls://host:port", Reason.BAD_ROSTER)
    return broker


def _format_log(log: LogKey) -> JsonObject:
    return {ED25519: format_vkey(log.ed25519), ML_DSA_44: format_vkey(log.ml_dsa_44)}


def _parse_log(value: Json) -> LogKey:
    members = exact_members(value, frozenset({ED25519, ML_DSA_44}), "log")
    ed25519, ml_dsa_44 = (
        parse_vkey(require_string(members[each], "log", most=_MAX_VKEY_CHARACTERS))
        for each in (ED25519, ML_DSA_44)
    )
    try:
        return LogKey(ed25519, ml_dsa_44)
    except Malformed as error:
        raise Malformed(error.detail, Reason.BAD_ROSTER) from error


def _format_keys(keys: VerifyKeys) -> JsonObject:
    return {
        ED25519: encode_base64url(keys.ed25519),
        ML_DSA_65: encode_base64url(keys.ml_dsa_65),
    }


def _parse_keys(value: Json) -> VerifyKeys:
    members = exact_members(value, frozenset({ED25519, ML_DSA_65}), "keys")
    return VerifyKeys(
        decode_base64url(members[ED25519], length=ED25519_PUBLIC_BYTES),
        decode_base64url(members[ML_DSA_65], length=ML_DSA_65_PUBLIC_BYTES),
    )
