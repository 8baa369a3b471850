"""How a document travels through other nations when the direct link is cut: the beacon chain's label on the outside.

Protocol section 8.4. ``FINAL;hop,hop`` in the header ``Varde-Transit`` of a message between brokers: for whom it is,
and which nations have handed it on so far. Nobody signs the label: a nation on the way may lie about the way, never
about the document, whose sender and recipient are inside its own protection. A document on the direct link has none.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from varde.errors import Malformed, Reason, Refused
from varde.identifiers import Nation, parse_nation

TRANSIT_HEADER: Final = "Varde-Transit"
MAX_HOPS: Final = 3
"""How many nations may hand a document on, one after the other."""

_FORM: Final = re.compile(r"[A-Z0-9]{2,8};(?:[A-Z0-9]{2,8}(?:,[A-Z0-9]{2,8}){0,7})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Transit:
    """For whom the document is, and who has handed it on, in order."""

    final: Nation
    hops: tuple[Nation, ...] = ()

    def through(self, nation: Nation) -> "Transit":
        """The label after ``nation`` has handed it on."""
        return Transit(self.final, (*self.hops, nation))


def format_transit(transit: Transit) -> str:
    """The header's text."""
    return f"{transit.final};{','.join(transit.hops)}"


def parse_transit(text: str) -> Transit:
    """``Malformed`` as ``BAD_ROUTE`` unless the text has the one form."""
    if _FORM.fullmatch(text) is None:
        raise Malformed("the transit label is not FINAL;HOP,HOP", Reason.BAD_ROUTE)
    final, _, hops = text.partition(";")
    return Transit(
        parse_nation(final), tuple(parse_nation(each) for each in hops.split(",") if each)
    )


def check_transit(
    transit: Transit, *, sender: Nation, me: Nation, link: Nation, members: AbstractSet[Nation]
) -> None:
    """``Refused`` as ``BAD_ROUTE`` where a document that came over ``link`` cannot have come that way.

    (1) everybody on the way is a member, once, and neither the sender, ourselves nor the one it is for: no loops; (2)
    it came from the last who handed it on, or else from its sender; (3) its way is not longer than the limit, counting
    us where it is not for us; (4) it is for a member other than its sender, and one for us was handed on by somebody.
    """
    hops = transit.hops
    on_the_way = {*hops}
    if len(on_the_way) != len(hops) or on_the_way & {sender, me, transit.final}:  # (1)
        raise Refused(Reason.BAD_ROUTE, "the way has a loop")
    if not on_the_way <= members:
        raise Refused(Reason.BAD_ROUTE, "a nation on the way is not a member")
    if link != (hops[-1] if hops else sender):  # (2)
        raise Refused(Reason.BAD_ROUTE, f"not handed on by {link}, from which it came")
    for_us = transit.final == me
    if len(hops) + (0 if for_us else 1) > MAX_HOPS:  # (3)
        raise Refused(Reason.BAD_ROUTE, f"more than {MAX_HOPS} nations on the way")
    if transit.final not in members or transit.final == sender or (for_us and not hops):  # (4)
        raise Refused(Reason.BAD_ROUTE, f"not on a way to {transit.final}")
