"""Names on the broker: who publishes and fetches what, and that a peer can do nothing else."""

import pytest

from support.federation import EE, FI, LT, LV, a_document_id
from varde.blob import parse_blob_address
from varde.identifiers import Lane
from varde.subjects import (
    BLOBS,
    BLOBS_SUBJECTS,
    INBOX,
    INBOX_SUBJECTS,
    OUTBOX,
    OUTBOX_SUBJECTS,
    PART_ANSWERS,
    PARTS_ASKED,
    PARTS_WANTED,
    PULSES_IN,
    blob_subject,
    gateway_consumer,
    inbox_filter,
    inbox_subject,
    message_id,
    outbox_subject,
    part_request,
    peer_consumer,
    peer_permissions,
    pulse_in,
    pulse_out,
    reply_prefix,
    stored_part,
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
        "part.get.FI",
    ]
    assert subscribe == ["_INBOX_FI.>", "pulse.out.FI"]


def test_a_part_of_a_blob_has_one_place() -> None:
    blob = parse_blob_address("A" * 43)
    assert (BLOBS, BLOBS_SUBJECTS) == ("BLOBS", "blob.*.*")
    assert blob_subject(blob, 3) == f"blob.{'A' * 43}.3"
    assert stored_part(blob, 0) == f"$JS.API.DIRECT.GET.BLOBS.blob.{'A' * 43}.0"
    assert (PARTS_WANTED, PART_ANSWERS, PARTS_ASKED, part_request(FI)) == (
        "node.part.get",
        "node.part.answer",
        "part.get.*",
        "part.get.FI",
    )


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
