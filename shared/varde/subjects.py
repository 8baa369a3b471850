"""Names on the broker: streams, subjects, consumers, headers. Protocol section 8.1.

``out.<TO>.<lane>`` on the sender's OUTBOX, ``in.<lane>.<FROM>`` on the recipient's INBOX. A peer may fetch from its
own two durable consumers, ``<NATION>-urgent`` and ``<NATION>-routine``, and do nothing else.
"""

from typing import Final

from varde.identifiers import DocumentId, Lane, Nation

OUTBOX: Final = "OUTBOX"
INBOX: Final = "INBOX"
OUTBOX_SUBJECTS: Final = "out.>"
INBOX_SUBJECTS: Final = "in.>"


def outbox_subject(to: Nation, lane: Lane) -> str:
    """Where the sender's gateway publishes what ``to`` shall fetch."""
    return f"out.{to}.{lane.value}"


def inbox_subject(lane: Lane, sender: Nation) -> str:
    """Where the recipient's relay publishes what it fetched from ``sender``."""
    return f"in.{lane.value}.{sender}"


def inbox_filter(lane: Lane) -> str:
    """What the gateway's consumer of one lane takes from the INBOX."""
    return f"in.{lane.value}.>"


def peer_consumer(peer: Nation, lane: Lane) -> str:
    """The durable consumer on our OUTBOX from which ``peer`` fetches."""
    return f"{peer}-{lane.value}"


def gateway_consumer(lane: Lane) -> str:
    """The durable consumer on our INBOX from which our gateway fetches."""
    return f"gateway-{lane.value}"


def reply_prefix(peer: Nation) -> str:
    """The only subjects to which ``peer`` may subscribe: replies to its own fetches."""
    return f"_INBOX_{peer}"


def peer_permissions(peer: Nation) -> tuple[list[str], list[str]]:
    """What ``peer`` may publish and subscribe on our broker: fetch its deliveries and acknowledge them."""
    publish: list[str] = []
    for lane in Lane:
        consumer = peer_consumer(peer, lane)
        publish.append(f"$JS.API.CONSUMER.MSG.NEXT.{OUTBOX}.{consumer}")
        publish.append(f"$JS.ACK.{OUTBOX}.{consumer}.>")
    return publish, [f"{reply_prefix(peer)}.>"]


def message_id(document: DocumentId, to: Nation, attempt: int) -> str:
    """The ``Nats-Msg-Id``: a retry of one attempt is one message, a new attempt is a new one."""
    return f"{document}.{to}.{attempt}"
