"""An officer's signed answer to an alert. Protocol section 6.3; it travels sealed, like the alert it answers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from varde.encoding import (
    MAX_MILLISECONDS,
    Json,
    JsonObject,
    decode_base64url,
    exact_members,
    require_integer,
    require_string,
)
from varde.errors import Malformed
from varde.identifiers import DocumentId, parse_document_id

MAX_NOTE_CHARACTERS: Final = 4000
MAX_OFFICER_CHARACTERS: Final = 128
_MEMBERS: Final = frozenset({"document", "digest", "officer", "response", "note", "at"})


class Response(StrEnum):
    """What the officer answers."""

    ACKNOWLEDGED = "acknowledged"
    ACTIONING = "actioning"
    ASSISTING = "assisting"
    DECLINED = "declined"


_RESPONSES: Final = tuple(Response)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The body of an acknowledgement; ``at`` in Unix milliseconds, ``digest`` of the alert's signed bytes."""

    document: DocumentId
    digest: str
    officer: str
    response: Response
    note: str
    at: int


def format_acknowledgement(acknowledgement: Acknowledgement) -> JsonObject:
    """The body to sign."""
    return {
        "document": acknowledgement.document,
        "digest": acknowledgement.digest,
        "officer": acknowledgement.officer,
        "response": acknowledgement.response.value,
        "note": acknowledgement.note,
        "at": acknowledgement.at,
    }


def parse_acknowledgement(body: Json) -> Acknowledgement:
    """``Malformed`` unless the body has the one form."""
    members = exact_members(body, _MEMBERS, "acknowledgement")
    response = members["response"]
    if response not in _RESPONSES:
        raise Malformed("the response is unknown")
    decode_base64url(members["digest"], length=32)
    officer = require_string(members["officer"], "officer", most=MAX_OFFICER_CHARACTERS)
    if not officer:
        raise Malformed("an acknowledgement names its officer")
    return Acknowledgement(
        document=parse_document_id(members["document"]),
        digest=str(members["digest"]),
        officer=officer,
        response=Response(str(response)),
        note=require_string(members["note"], "note", most=MAX_NOTE_CHARACTERS),
        at=require_integer(members["at"], "at", most=MAX_MILLISECONDS),
    )
