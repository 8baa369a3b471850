"""Whether each stream of our own broker still stores: one small message into it, taken out again at once.

A stream of its own for such messages would prove nothing: where a write failed, nats-server (seen with 2.15.1) goes on
refusing in that one stream, leaves its publishers without an answer, and answers every question. No consumer's filter
takes these subjects, and no peer may publish to them. Protocol section 8.1.
"""

import asyncio
import contextlib
from typing import Final

from varde.subjects import BLOBS, INBOX, OUTBOX
from varde_gateway.broker_wire import Live, NoStream, Unstored
from varde_gateway.flow.ports import BrokerError, BrokerFull

ANSWER_SECONDS: Final = 3.0
_PROBES: Final = {OUTBOX: "out.probe", INBOX: "in.probe", BLOBS: "blob.probe.0"}


async def streams_without_store(live: Live) -> list[str]:
    """The streams that did not store a message although the broker answers a question about them."""
    stores = await asyncio.gather(*(_stores(live, *each) for each in _PROBES.items()))
    return [stream for stream, does in zip(_PROBES, stores, strict=True) if not does]


async def _stores(live: Live, stream: str, subject: str) -> bool:
    try:
        sequence = await live.store(subject, b"", ANSWER_SECONDS)
    except Unstored:
        # A machine or a disk that is only overloaded is slow with questions, too; that raises.
        await live.ask(f"STREAM.INFO.{stream}", {})
        return False
    except NoStream:
        # Who publishes or fetches makes it again.
        return True
    except BrokerFull:
        # At its limit it says so before it writes: not what is looked for here, and seen by who publishes.
        return True
    with contextlib.suppress(BrokerError):
        await live.ask(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
    return True
