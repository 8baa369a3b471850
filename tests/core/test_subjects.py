"""Names on the broker: who publishes and fetches what, and that a peer can do nothing else."""

import pytest

from support.federation import EE, FI, a_document_id
from varde.identifiers import Lane
from varde.subjects import (
    INBOX,
    INBOX_SUBJECTS,
    OUTBOX,
    OUTBOX_SUBJECTS,
    gateway_consumer,
    inbox_filter,
    inbox_subject,
    message_id,
    outbox_subject,
    peer_consumer,
    peer_permissions,
    reply_prefix,
)


def test_the_names_are_those_of_the_protocol() -> None:
    assert (OUTBOX, OUTBOX_SUBJECTS, INBOX, INBOX_SUBJECTS) == ("OUTBOX", "out.>", "INBOX", "in.>")
    assert outbox_subject(FI, Lane.URGENT) == "out.FI.urgent"
    assert inbox_subject(Lane.ROUTINE, EE) == "in.routine.EE"
    assert inbox_filter(Lane.URGENT) == "in.urgent.>"
    assert peer_consumer(FI, Lane.URGENT) == "FI-urgent"
    assert gateway_consumer(Lane.ROUTINE) == "gateway-routine"
    assert reply_prefix(FI) == "_INBOX_FI"


def test_a_peer_may_fetch_and_acknowledge_its_own_and_nothing_else() -> None:
    publish, subscribe = peer_permissions(FI)
    assert publish == [
        "$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-urgent",
        "$JS.ACK.OUTBOX.FI-urgent.>",
        "$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-routine",
        "$JS.ACK.OUTBOX.FI-routine.>",
    ]
    assert subscribe == ["_INBOX_FI.>"]


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_new_attempt_is_a_new_message(attempt: int) -> None:
    document = a_document_id(1)
    assert message_id(document, FI, attempt) == f"{document}.FI.{attempt}"
