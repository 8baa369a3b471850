"""The payload of every signed document: who says it to whom, when, until when, and under which roster.

Protocol section 6. The body is opaque here; each kind's module reads its own.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from varde.encoding import (
    MAX_SECONDS,
    Json,
    JsonObject,
    decode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
    require_list,
)
from varde.errors import Malformed, Reason, Refused
from varde.identifiers import (
    DocumentId,
    FederationId,
    Nation,
    parse_document_id,
    parse_federation_id,
    parse_nation,
)
from varde.signing import MAX_ROSTER_PAYLOAD_BYTES

PROFILE: Final = 1
MAX_RECIPIENTS: Final = 64
MAX_SKEW_SECONDS: Final = 300
MAX_LIFE_SECONDS: Final = 7 * 24 * 3600

_MEMBERS: Final = frozenset({"v", "fed", "id", "from", "to", "iat", "exp", "roster", "body"})


@dataclass(frozen=True, slots=True)
class RosterReference:
    """The roster under which a document was signed: its version and the SHA-256 of its payload, base64url."""

    version: int
    hash: str


@dataclass(frozen=True, slots=True)
class Document:
    """A signed document's payload; times in Unix seconds, ``to`` sorted without repetition."""

    federation: FederationId
    id: DocumentId
    sender: Nation
    to: tuple[Nation, ...]
    issued_at: int
    expires_at: int
    roster: RosterReference
    body: JsonObject


def format_document(document: Document) -> bytes:
    """The payload bytes to sign."""
    return format_json(
        {
            "v": PROFILE,
            "fed": document.federation,
            "id": document.id,
            "from": document.sender,
            "to": [*document.to],
            "iat": document.issued_at,
            "exp": document.expires_at,
            "roster": {"version": document.roster.version, "hash": document.roster.hash},
            "body": document.body,
        }
    )


def parse_document(payload: bytes) -> Document:
    """``Malformed`` unless the payload has exactly the members above, each in its one form.

    How large a payload of its kind may be, ``signing.parse_signed`` has checked.
    """
    value = exact_members(parse_json(payload, limit=MAX_ROSTER_PAYLOAD_BYTES), _MEMBERS, "payload")
    check_profile(value["v"])
    body = value["body"]
    if not isinstance(body, dict):
        raise Malformed("the body is not an object")
    return Document(
        federation=parse_federation_id(value["fed"]),
        id=parse_document_id(value["id"]),
        sender=parse_nation(value["from"]),
        to=_parse_recipients(value["to"]),
        issued_at=require_integer(value["iat"], "iat", most=MAX_SECONDS),
        expires_at=require_integer(value["exp"], "exp", most=MAX_SECONDS),
        roster=parse_roster_reference(value["roster"]),
        body=body,
    )


def check_time(document: Document, now: int) -> None:
    """``Refused`` where a document is from the future, expired, or wants to live too long; ``now`` in seconds."""
    check_not_expired(document.expires_at, now)
    if document.issued_at > now + MAX_SKEW_SECONDS:
        ahead = document.issued_at - now
        raise Refused(Reason.FROM_THE_FUTURE, f"issued {ahead} s ahead of this node's clock")
    if not 0 < document.expires_at - document.issued_at <= MAX_LIFE_SECONDS:
        raise Refused(Reason.LIFE_TOO_LONG, f"a document lives 1 to {MAX_LIFE_SECONDS} seconds")


def check_not_expired(expires_at: int, now: int) -> None:
    """``Refused`` where the expiry is behind ``now`` by more than the allowed skew."""
    if now > expires_at + MAX_SKEW_SECONDS:
        raise Refused(Reason.EXPIRED, f"expired {now - expires_at} s ago")


def check_profile(value: Json) -> None:
    """``Malformed`` as ``WRONG_PROFILE`` unless this is the one version that exists; true is not 1."""
    if isinstance(value, bool) or value != PROFILE:
        raise Malformed("the version is not 1", Reason.WRONG_PROFILE)


def parse_roster_reference(value: Json) -> RosterReference:
    """``{"version", "hash"}``."""
    members = exact_members(value, frozenset({"version", "hash"}), "roster")
    version = require_integer(members["version"], "roster version")
    decode_base64url(members["hash"], length=32)
    return RosterReference(version, str(members["hash"]))


def _parse_recipients(value: Json) -> tuple[Nation, ...]:
    recipients = [parse_nation(each) for each in require_list(value, "to", most=MAX_RECIPIENTS)]
    if not recipients or any(a >= b for a, b in pairwise(recipients)):
        raise Malformed("the recipients are not one or more nations, sorted, each once")
    return tuple(recipients)
