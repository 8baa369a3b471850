"""A nation's signed prekeys: one a day, for today and the two days ahead. Protocol section 4.2.

Deletion of the private halves is the recipient's; which prekey a sender may use is decided here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from varde.encoding import (
    MAX_SECONDS,
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    require_integer,
    require_list,
)
from varde.errors import Malformed, Reason, Untrusted
from varde.keys import PREKEY_PUBLIC_BYTES, Prekey

MAX_PREKEYS: Final = 8
MAX_PREKEY_LIFE_SECONDS: Final = 2 * 24 * 3600
STALE_SECONDS: Final = 48 * 3600
"""How long after its expiry an alert may still be sealed for a prekey, and how long its private half is kept."""


@dataclass(frozen=True, slots=True)
class DatedPrekey:
    """A prekey and when it may be used; Unix seconds, ``not_before <= now < expires_at``."""

    prekey: Prekey
    not_before: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Prekeys:
    """The body of a prekeys document; a higher ``sequence`` replaces a lower one."""

    sequence: int
    keys: tuple[DatedPrekey, ...]


@dataclass(frozen=True, slots=True)
class ChosenPrekey:
    """The prekey to seal for, and whether it is past its day."""

    prekey: Prekey
    stale: bool


def choose_prekey(
    keys: Iterable[DatedPrekey], now: int, *, stale_allowed: bool
) -> ChosenPrekey | None:
    """The newest live prekey; else, for an alert, one expired less than 48 hours ago; else none."""
    begun = sorted((key for key in keys if key.not_before <= now), key=lambda key: key.not_before)
    for key in reversed(begun):
        if now < key.expires_at:
            return ChosenPrekey(key.prekey, stale=False)
    for key in reversed(begun):
        if stale_allowed and now < key.expires_at + STALE_SECONDS:
            return ChosenPrekey(key.prekey, stale=True)
    return None


def format_prekeys(prekeys: Prekeys) -> JsonObject:
    """The body to sign."""
    return {
        "seq": prekeys.sequence,
        "keys": [
            {
                "kid": key.prekey.kid,
                "pub": encode_base64url(key.prekey.public),
                "nbf": key.not_before,
                "exp": key.expires_at,
            }
            for key in prekeys.keys
        ],
    }


def parse_prekeys(body: Json) -> Prekeys:
    """``Malformed``, or ``Untrusted`` as ``BAD_KEY`` where a key is weak or its kid is not its own."""
    members = exact_members(body, frozenset({"seq", "keys"}), "prekeys")
    keys = require_list(members["keys"], "keys", most=MAX_PREKEYS)
    if not keys:
        raise Malformed("there is no prekey in the document")
    return Prekeys(
        sequence=require_integer(members["seq"], "seq"),
        keys=tuple(_parse_dated(each) for each in keys),
    )


def _parse_dated(value: Json) -> DatedPrekey:
    members = exact_members(value, frozenset({"kid", "pub", "nbf", "exp"}), "prekey")
    prekey = Prekey(decode_base64url(members["pub"], length=PREKEY_PUBLIC_BYTES))
    if members["kid"] != prekey.kid:
        raise Untrusted(Reason.BAD_KEY, "a prekey's identifier is not computed from it")
    not_before = require_integer(members["nbf"], "nbf", most=MAX_SECONDS)
    expires_at = require_integer(members["exp"], "exp", most=MAX_SECONDS)
    if not 0 < expires_at - not_before <= MAX_PREKEY_LIFE_SECONDS:
        raise Malformed("a prekey lives up to two days")
    return DatedPrekey(prekey, not_before, expires_at)
