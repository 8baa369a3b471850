"""The streams of our own broker and their consumers: how they are made, set right, and what waits in the OUTBOX.

All but that of the blobs are work queues that refuse what is new when they are full, and never drop. Protocol section 8.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from varde.identifiers import Lane, Nation
from varde.subjects import (
    BLOBS,
    BLOBS_SUBJECTS,
    INBOX,
    INBOX_SUBJECTS,
    OUTBOX,
    OUTBOX_SUBJECTS,
    gateway_consumer,
    inbox_filter,
    outbox_subject,
    peer_consumer,
)
from varde_gateway.broker_wire import Live, count_in, error_code, error_text, member_in
from varde_gateway.flow.ports import BrokerUnavailable, Held

MESSAGE_LIFE_SECONDS: Final = 8 * 24 * 3600
"""A day more than a document may live."""

DUPLICATE_WINDOW_SECONDS: Final = 120
OUTBOX_PER_SUBJECT: Final = 50_000
"""A nation that stays away fills its own share of the OUTBOX, not that of the others."""

INBOX_PER_SUBJECT: Final = 1000
"""All links' documents stand in one row: what a flooder may have before the alerts of others. The rest waits at its broker."""

MAX_UNACKNOWLEDGED: Final = 4096
PEER_ACK_WAIT_SECONDS: Final = 5
GATEWAY_ACK_WAIT_SECONDS: Final = {Lane.URGENT: 5, Lane.ROUTINE: 20}
"""How long after a gateway died its unfinished messages come again; opening a batch must fit in it."""

_NANOSECONDS: Final = 1_000_000_000
_STREAM_DIFFERS: Final = 10058
"""JetStream's error code for a stream that exists with another configuration."""

_log = structlog.get_logger("broker")


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """How much the broker keeps for us, and on how many servers."""

    outbox_bytes: int = 2 * 1024**3
    inbox_bytes: int = 2 * 1024**3
    blobs_bytes: int = 2 * 1024**3
    outbox_per_subject: int = OUTBOX_PER_SUBJECT
    inbox_per_subject: int = INBOX_PER_SUBJECT
    replicas: int = 1


USUAL_LIMITS: Final = BrokerLimits()


async def make_streams(live: Live, peers: Iterable[Nation], limits: BrokerLimits) -> None:
    """Make what is missing, and take away what was for nations that are no peers any more."""
    wanted = {
        peer_consumer(peer, lane): outbox_subject(peer, lane) for peer in peers for lane in Lane
    }
    await _make(live, OUTBOX, _outbox_config(limits))
    await _make(live, INBOX, _inbox_config(limits))
    await _make(live, BLOBS, _blobs_config(limits))
    for lane in Lane:
        ack_wait = GATEWAY_ACK_WAIT_SECONDS[lane]
        await _make_consumer(live, INBOX, gateway_consumer(lane), inbox_filter(lane), ack_wait)
    for name, subject in wanted.items():
        await _make_consumer(live, OUTBOX, name, subject, PEER_ACK_WAIT_SECONDS)
    await _let_former_peers_go(live, {*wanted})


async def outbox_held(live: Live) -> Held:
    """What waits in the OUTBOX now."""
    info = await live.ask(f"STREAM.INFO.{OUTBOX}", {"subjects_filter": OUTBOX_SUBJECTS})
    if "error" in info:
        raise BrokerUnavailable(error_text(info))
    state = member_in(info, "state")
    subjects = member_in(state, "subjects")
    return Held(
        {subject: count_in(subjects, subject) for subject in subjects},
        count_in(state, "bytes"),
        count_in(member_in(info, "config"), "max_bytes"),
    )


async def _let_former_peers_go(live: Live, wanted: set[str]) -> None:
    # What waits for a nation that was removed would fill its share of the OUTBOX until it is too old.
    listed = await live.ask(f"CONSUMER.NAMES.{OUTBOX}", {})
    names = listed.get("consumers") or []
    assert isinstance(names, list)
    for former in {str(name) for name in names} - wanted:
        await live.ask(f"CONSUMER.DELETE.{OUTBOX}.{former}", {})
        nation, _, lane = former.rpartition("-")
        await live.ask(f"STREAM.PURGE.{OUTBOX}", {"filter": f"out.{nation}.{lane}"})
        _log.info("consumer of a former peer deleted", consumer=former)


def _outbox_config(limits: BrokerLimits) -> dict[str, object]:
    return _queue_config(OUTBOX_SUBJECTS, limits) | {
        "max_bytes": limits.outbox_bytes,
        "max_msgs_per_subject": limits.outbox_per_subject,
    }


def _inbox_config(limits: BrokerLimits) -> dict[str, object]:
    return _queue_config(INBOX_SUBJECTS, limits) | {
        "max_bytes": limits.inbox_bytes,
        "max_msgs_per_subject": limits.inbox_per_subject,
    }


def _queue_config(subjects: str, limits: BrokerLimits) -> dict[str, object]:
    return {
        "subjects": [subjects],
        "retention": "workqueue",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_age": MESSAGE_LIFE_SECONDS * _NANOSECONDS,
        "duplicate_window": DUPLICATE_WINDOW_SECONDS * _NANOSECONDS,
        "num_replicas": limits.replicas,
    }


def _blobs_config(limits: BrokerLimits) -> dict[str, object]:
    # One message per part: what is published again replaces itself. A full stream refuses, as the others do.
    return {
        "subjects": [BLOBS_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": limits.blobs_bytes,
        "max_msgs_per_subject": 1,
        "max_age": MESSAGE_LIFE_SECONDS * _NANOSECONDS,
        "allow_direct": True,
        "num_replicas": limits.replicas,
    }


async def _make(live: Live, name: str, config: dict[str, object]) -> None:
    named = {"name": name, **config}
    made = await live.ask(f"STREAM.CREATE.{name}", named)
    if error_code(made) == _STREAM_DIFFERS:
        made = await live.ask(f"STREAM.UPDATE.{name}", named)
    _check_made(made, name)


async def _make_consumer(
    live: Live, stream: str, name: str, subject: str, ack_wait_seconds: int
) -> None:
    config = {
        "durable_name": name,
        "name": name,
        "filter_subject": subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": ack_wait_seconds * _NANOSECONDS,
        "max_deliver": -1,
        "max_ack_pending": MAX_UNACKNOWLEDGED,
    }
    made = await live.ask(
        f"CONSUMER.CREATE.{stream}.{name}.{subject}", {"stream_name": stream, "config": config}
    )
    _check_made(made, name)


def _check_made(made: dict[str, object], name: str) -> None:
    if "error" in made:
        raise BrokerUnavailable(f"{name} cannot be made: {error_text(made)}")
