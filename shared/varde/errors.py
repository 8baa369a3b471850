"""What can be wrong, by who is at fault: the bytes, the trust, or the policy.

A refusal that belongs to normal work is a value (``admission.Refuse``, ``opening.Rejection``); it carries the
same ``Reason``. The reason's word is the one in the log, the metric, the audit entry and the page.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a document, an envelope or a roster was not accepted. Protocol section 9 lists them."""

    OVERSIZE = "oversize"
    MALFORMED = "malformed"
    WRONG_PROFILE = "wrong_profile"
    WRONG_FEDERATION = "wrong_federation"
    UNKNOWN_SENDER = "unknown_sender"
    SUSPENDED_SENDER = "suspended_sender"
    NOT_FOR_US = "not_for_us"
    OWN_DOCUMENT = "own_document"
    WRONG_LINK = "wrong_link"
    BAD_ROUTE = "bad_route"
    EXPIRED = "expired"
    FROM_THE_FUTURE = "from_the_future"
    LIFE_TOO_LONG = "life_too_long"
    NO_PREKEY = "no_prekey"
    BAD_WRAP = "bad_wrap"
    BAD_CIPHERTEXT = "bad_ciphertext"
    BAD_SIGNATURE = "bad_signature"
    WRONG_KIND = "wrong_kind"
    INNER_OUTER_MISMATCH = "inner_outer_mismatch"
    FORKED_ROSTER = "forked_roster"
    NEWER_ROSTER = "newer_roster"
    OLD_ROSTER = "old_roster"
    REPLAYED = "replayed"
    BAD_BODY = "bad_body"
    BAD_KEY = "bad_key"
    BAD_ROSTER = "bad_roster"
    TOO_FEW_VOTES = "too_few_votes"
    BAD_LOG = "bad_log"
    BAD_BLOB = "bad_blob"
    POLICY = "policy"


class VardeError(Exception):
    """The root of everything that Varde raises on purpose."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class Malformed(VardeError):
    """The bytes are not a valid encoding of anything."""

    def __init__(self, detail: str, reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(reason, detail)


class Untrusted(VardeError):
    """Well formed, but a signature, the roster or the log does not vouch for it."""


class Refused(VardeError):
    """Well formed and genuine, but against the rules."""
