"""Names on the broker: streams, subjects, consumers, headers. Protocol section 8.1.

``out.<TO>.<lane>`` on the sender's OUTBOX, ``in.<lane>.<FROM>`` on the recipient's INBOX. A peer may fetch from its
own two durable consumers, ``<NATION>-urgent`` and ``<NATION>-routine``, and do nothing else.
"""

from typing import Final

from varde.blob import BlobAddress
from varde.identifiers import DocumentId, Lane, Nation
from varde.transit import Transit

OUTBOX: Final = "OUTBOX"
INBOX: Final = "INBOX"
OUTBOX_SUBJECTS: Final = "out.>"
INBOX_SUBJECTS: Final = "in.>"
BLOBS: Final = "BLOBS"
BLOBS_SUBJECTS: Final = "blob.*.*"
PARTS_WANTED: Final = "node.part.get"
"""Where our gateway asks our relay for a part of a blob that another nation's broker has."""

PART_ANSWERS: Final = "node.part.answer"
"""Where it hears the answers, under a token of its own each."""

PARTS_ASKED: Final = "part.get.*"
"""Where our relay hears what the peers ask for."""

ROSTER_GET: Final = "node.roster.get"
"""Where our relay asks our gateway for the rosters after a version."""

ROSTER_UPDATE: Final = "node.roster.update"
"""Where our gateway announces a new roster to our relay."""

BROKER_STUCK: Final = "node.broker.stuck"
"""Where our gateway tells our relay which streams our broker stores nothing in, although it answers."""

BROKER_RESTARTED: Final = b"restarted"
"""The relay's answer where it has made the broker restart; any other says in words why not."""

PULSES_IN: Final = "pulse.in.*"
"""Heartbeats that our relay has heard; stored nowhere."""


def outbox_subject(to: Nation, lane: Lane) -> str:
    """Where the sender's gateway publishes what ``to`` shall fetch."""
    return f"out.{to}.{lane.value}"


def inbox_subject(lane: Lane, link: Nation) -> str:
    """Where the recipient's relay publishes what it fetched from the OUTBOX of ``link``."""
    return f"in.{lane.value}.{link}"


def inbox_filter(lane: Lane) -> str:
    """What the gateway's consumer of one lane takes from the INBOX."""
    return f"in.{lane.value}.>"


def peer_consumer(peer: Nation, lane: Lane) -> str:
    """The durable consumer on our OUTBOX from which ``peer`` fetches."""
    return f"{peer}-{lane.value}"


def gateway_consumer(lane: Lane) -> str:
    """The durable consumer on our INBOX from which our gateway fetches."""
    return f"gateway-{lane.value}"


def pulse_out(peer: Nation) -> str:
    """Where our gateway says its heartbeats for ``peer``; who does not listen at that moment does not hear it."""
    return f"pulse.out.{peer}"


def pulse_in(sender: Nation) -> str:
    """Where our relay repeats the heartbeats that it heard at the broker of ``sender``."""
    return f"pulse.in.{sender}"


def blob_subject(blob: BlobAddress, part: int) -> str:
    """Where a sealed part is kept on the BLOBS stream."""
    return f"blob.{blob}.{part}"


def stored_part(blob: BlobAddress, part: int) -> str:
    """The request that reads it; for our own relay only, see ``part_request``."""
    return f"$JS.API.DIRECT.GET.{BLOBS}.{blob_subject(blob, part)}"


def part_request(peer: Nation) -> str:
    """Where ``peer`` asks for a part.

    Our relay answers, from the stream. Asked directly, the server reads a ``*`` in the wanted subject as a pattern, and a peer
    could find out what there is.
    """
    return f"part.get.{peer}"


def reply_prefix(peer: Nation) -> str:
    """The only subjects to which ``peer`` may subscribe: replies to its own fetches."""
    return f"_INBOX_{peer}"


def peer_permissions(peer: Nation) -> tuple[list[str], list[str]]:
    """What ``peer`` may do on our broker: fetch and acknowledge its deliveries, hear our heartbeats, ask for parts of blobs."""
    publish: list[str] = []
    for lane in Lane:
        consumer = peer_consumer(peer, lane)
        publish.append(f"$JS.API.CONSUMER.MSG.NEXT.{OUTBOX}.{consumer}")
        publish.append(f"$JS.ACK.{OUTBOX}.{consumer}.>")
    publish.append(part_request(peer))
    return publish, [f"{reply_prefix(peer)}.>", pulse_out(peer)]


def message_id(document: DocumentId, to: Nation, attempt: int) -> str:
    """The ``Nats-Msg-Id``: a retry of one attempt is one message, a new attempt is a new one."""
    return f"{document}.{to}.{attempt}"


def transit_id(document: DocumentId, through: Nation, transit: Transit, digest: str) -> str:
    """The same for what ``through`` shall hand on; ``digest`` (base64url) is of the bytes that travel.

    The way is part of it: the same bytes on two ways are two messages.
    """
    return f"{document}.{'.'.join((*transit.hops, through, transit.final))}.{digest[:16]}"
