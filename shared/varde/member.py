"""One seat on the roster: a nation or an observer, its keys by purpose, and where its broker is.

Protocol section 4.3. Every key has one purpose: message signing, voting (may stay offline), log, relay (NKey), TLS.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from varde.checkpoint import parse_vkey
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
from varde.keys import ED25519, ED25519_PUBLIC_BYTES, ML_DSA_65, ML_DSA_65_PUBLIC_BYTES, VerifyKeys

_MEMBERS: Final = frozenset(
    {"nation", "standing", "name", "broker", "ca", "relay", "log", "signing", "voting"}
)
_BROKER: Final = re.compile(
    r"tls://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\]):[1-9][0-9]{0,4}",
    re.ASCII,
)
_NKEY_USER: Final = re.compile(r"U[A-Z2-7]{55}", re.ASCII)
_MAX_CERTIFICATE_BYTES: Final = 4096


class Standing(StrEnum):
    """A member votes; an observer does not."""

    MEMBER = "member"
    OBSERVER = "observer"


@dataclass(frozen=True, slots=True)
class Member:
    """One seat.

    ``broker`` is ``tls://host:port``; ``ca`` the DER certificate that its TLS certificate chains to; ``relay`` the
    public NKey of its relay; ``log`` the C2SP vkey of its audit log; ``voting_keys`` None for an observer.
    """

    nation: Nation
    standing: Standing
    name: str
    broker: str
    ca: bytes
    relay: str
    log: str
    signing_keys: VerifyKeys
    voting_keys: VerifyKeys | None

    def key_bytes(self) -> list[bytes | str]:
        """Every public key of this seat, for the rule that none occurs twice."""
        pairs = [self.signing_keys, *([] if self.voting_keys is None else [self.voting_keys])]
        halves = [half for pair in pairs for half in (pair.ed25519, pair.ml_dsa_65)]
        return [*halves, self.ca, self.relay, parse_vkey(self.log).public]


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
        "log": member.log,
        "signing": _format_keys(member.signing_keys),
        "voting": None if voting is None else _format_keys(voting),
    }


def parse_member(value: Json) -> Member:
    """``Malformed`` as ``BAD_ROSTER`` for a wrong form, ``Untrusted`` as ``BAD_KEY`` for a weak key."""
    members = exact_members(value, _MEMBERS, "member")
    standing, broker, relay = members["standing"], members["broker"], members["relay"]
    if standing not in tuple(Standing):
        raise Malformed("the standing is neither member nor observer", Reason.BAD_ROSTER)
    if not isinstance(broker, str) or _BROKER.fullmatch(broker) is None:
        raise Malformed("the broker is not tls://host:port", Reason.BAD_ROSTER)
    if not isinstance(relay, str) or _NKEY_USER.fullmatch(relay) is None:
        raise Malformed("the relay is not a public user NKey", Reason.BAD_ROSTER)
    if (standing == Standing.OBSERVER) != (members["voting"] is None):
        raise Malformed("members have voting keys, observers have none", Reason.BAD_ROSTER)
    ca = decode_base64url(members["ca"])
    if not 0 < len(ca) <= _MAX_CERTIFICATE_BYTES:
        raise Malformed("the CA certificate is empty or too large", Reason.BAD_ROSTER)
    log = require_string(members["log"], "log")
    parse_vkey(log)
    return Member(
        nation=parse_nation(members["nation"]),
        standing=Standing(str(standing)),
        name=require_string(members["name"], "name", most=128),
        broker=broker,
        ca=ca,
        relay=relay,
        log=log,
        signing_keys=_parse_keys(members["signing"]),
        voting_keys=None if members["voting"] is None else _parse_keys(members["voting"]),
    )


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
