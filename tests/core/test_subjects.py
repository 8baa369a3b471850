"""Names on the broker: who publishes and fetches what, and that a peer can do nothing else."""

import pytest

from support.federation import EE, FI, LT, LV, a_document_id
from varde.identifiers import Lane
from varde.subjects import (
    INBOX,
    INBOX_SUBJECTS,
    OUTBOX,
    OUTBOX_SUBJECTS,
    PULSES_IN,
    gateway_consumer,
    inbox_filter,
    inbox_subject,
    message_id,
    outbox_subject,
    peer_consumer,
    peer_permissions,
    pulse_in,
    pulse_out,
    reply_prefix,
    transit_id,
)
from varde.transit import Transit


def test_the_names_are_those_of_the_protocol() -> None:
    assert (OUTBOX, OUTBOX_SUBJECTS, INBOX, INBOX_SUBJECTS) == ("OUTBOX", "out.>", "INBOX", "in.>")
    assert outbox_subject(FI, Lane.URGENT) == "out.FI.urgent"
    assert inbox_subject(Lane.ROUTINE, EE) == "in.routine.EE"
    assert inbox_filter(Lane.URGENT) == "in.urgent.>"
    assert peer_consumer(FI, Lane.URGENT) == "FI-urgent"
    assert gateway_consumer(Lane.ROUTINE) == "gateway-routine"
    assert reply_prefix(FI) == "_INBOX_FI"
    assert (pulse_out(FI), pulse_in(EE), PULSES_IN) == (
        "pulse.out.FI",
        "pulse.in.EE",
        "pulse.in.*",
    )


def test_a_peer_may_fetch_and_acknowledge_its_own_and_nothing_else() -> None:
    publish, subscribe = peer_permissions(FI)
    assert publish == [
        "$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-urgent",
        "$JS.ACK.OUTBOX.FI-urgent.>",
        "$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-routine",
        "$JS.ACK.OUTBOX.FI-routine.>",
    ]
    assert subscribe == ["_INBOX_FI.>", "pulse.out.FI"]


def test_the_same_bytes_on_two_ways_are_two_messages() -> None:
    document, digest = a_document_id(1), "A" * 43
    ways = [
        (LV, Transit(FI)),
        (LT, Transit(FI)),
        (FI, Transit(FI, (LV,))),
        (LT, Transit(FI, (LV,))),
    ]
    names = [transit_id(document, through, transit, digest) for through, transit in ways]
    assert names[0] == f"{document}.LV.FI.{'A' * 16}"
    assert len({*names, transit_id(document, LV, Transit(FI), "B" * 43)}) == 5


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_new_attempt_is_a_new_message(attempt: int) -> None:
    document = a_document_id(1)
    assert message_id(document, FI, attempt) == f"{document}.FI.{attempt}"
