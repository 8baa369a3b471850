"""The body of an alert document: the CAP alert, its TLP marking, who sees the answers, and the files beside it.

Protocol section 6.1. TLP 2.0 is FIRST's Traffic Light Protocol.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from varde.alert import Alert, format_alert, parse_alert
from varde.attachment import Attachment, format_attachment, parse_attachments
from varde.encoding import Json, JsonObject, exact_members
from varde.errors import Malformed

_MEMBERS: Final = frozenset({"tlp", "alert", "share_acknowledgements", "attachments"})


class Tlp(StrEnum):
    """Who may see it, from everybody to the named readers only."""

    CLEAR = "CLEAR"
    GREEN = "GREEN"
    AMBER = "AMBER"
    AMBER_STRICT = "AMBER+STRICT"
    RED = "RED"


_TLPS: Final = tuple(Tlp)


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What the sender signs; acknowledgements go to the sender alone, or to every recipient as well."""

    tlp: Tlp
    alert: Alert
    share_acknowledgements: bool
    attachments: tuple[Attachment, ...] = ()


def format_bulletin(bulletin: Bulletin) -> JsonObject:
    """The body to sign."""
    return {
        "tlp": bulletin.tlp.value,
        "alert": format_alert(bulletin.alert),
        "share_acknowledgements": bulletin.share_acknowledgements,
        "attachments": [format_attachment(each) for each in bulletin.attachments],
    }


def parse_bulletin(body: Json) -> Bulletin:
    """``Malformed`` unless the body has the one form and its alert keeps the rules of CAP 1.2."""
    members = exact_members(body, _MEMBERS, "alert body")
    share = members["share_acknowledgements"]
    if not isinstance(share, bool):
        raise Malformed("share_acknowledgements is not true or false")
    return Bulletin(
        parse_tlp(members["tlp"]),
        parse_alert(members["alert"]),
        share,
        parse_attachments(members["attachments"]),
    )


def parse_tlp(value: Json) -> Tlp:
    """A TLP 2.0 label without its ``TLP:`` prefix."""
    if not isinstance(value, str) or value not in _TLPS:
        raise Malformed(f"{str(value)[:24]!r} is not one of {', '.join(Tlp)}")
    return Tlp(value)
