"""The keystore read again, when a roster or a proposal names keys of ours that this process has not seen.

The operator rotates keys beside a running node; the members' votes make them the keys in force.
"""

import asyncio

import structlog

from varde.roster import Roster
from varde_gateway.flow.desk import Desk

_log = structlog.get_logger("keys")


async def look_for_keys(desk: Desk, roster: Roster) -> None:
    """Have the keys that our seat has in ``roster``, if the keystore holds them."""
    seat = roster.members.get(desk.nation)
    if seat is None or desk.hold_keys is None:
        return
    signing = {desk.keys.public, *(() if desk.next_keys is None else (desk.next_keys.public,))}
    voting = {each.public for each in desk.voting_keys}
    if seat.signing_keys in signing and (seat.voting_keys in voting or not voting):
        return
    held = await asyncio.to_thread(desk.hold_keys)
    # In this order: whoever composes meanwhile finds the keys of the roster in force in one of the two places.
    desk.keys = held.message
    desk.next_keys = held.next_message
    desk.voting_keys = held.voting
    _log.info("keystore read again", next_message=held.next_message is not None)
