"""A node's signed word that it has durably recorded documents, or that an officer's screen showed them.

Protocol section 6.2. One receipt may cover many documents of one sender. Receipts travel signed but not sealed: they
hold ids and digests only, and must find their way back even where no prekey is live.
"""

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
    require_list,
)
from varde.errors import Malformed
from varde.identifiers import DocumentId, Nation, parse_document_id, parse_nation
from varde.transit import MAX_HOPS

MAX_RECEIPTED: Final = 512


class Stage(StrEnum):
    """What the receipt says happened at the recipient's node."""

    DELIVERED = "delivered"
    DISPLAYED = "displayed"


_STAGES: Final = tuple(Stage)


@dataclass(frozen=True, slots=True)
class Receipted:
    """One document that the receipt covers; ``at`` in Unix milliseconds by the recipient's clock.

    ``via`` are the nations that handed it on, in order; none where it came over the direct link.
    """

    id: DocumentId
    digest: str
    at: int
    via: tuple[Nation, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The body of a receipt."""

    stage: Stage
    documents: tuple[Receipted, ...]


def format_receipt(receipt: Receipt) -> JsonObject:
    """The body to sign."""
    return {
        "stage": receipt.stage.value,
        "documents": [
            {"id": each.id, "digest": each.digest, "at": each.at, "via": [*each.via]}
            for each in receipt.documents
        ],
    }


def parse_receipt(body: Json) -> Receipt:
    """``Malformed`` unless the body has the one form and covers 1 to 512 documents."""
    members = exact_members(body, frozenset({"stage", "documents"}), "receipt")
    stage = members["stage"]
    if stage not in _STAGES:
        raise Malformed("the stage of the receipt is unknown")
    documents = require_list(members["documents"], "documents", most=MAX_RECEIPTED)
    if not documents:
        raise Malformed("the receipt covers no document")
    return Receipt(Stage(str(stage)), tuple(_parse_receipted(each) for each in documents))


def _parse_receipted(value: Json) -> Receipted:
    members = exact_members(value, frozenset({"id", "digest", "at", "via"}), "receipted document")
    decode_base64url(members["digest"], length=32)
    return Receipted(
        id=parse_document_id(members["id"]),
        digest=str(members["digest"]),
        at=require_integer(members["at"], "at", most=MAX_MILLISECONDS),
        via=tuple(
            parse_nation(each) for each in require_list(members["via"], "via", most=MAX_HOPS)
        ),
    )
