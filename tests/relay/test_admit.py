"""From the peer's OUTBOX into our INBOX: what is stored under which name, and what the peer's broker is told when."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from support.federation import EE, FI, LV, NOW, a_document_id, federation
from varde.admission import Admit, Refuse
from varde.document import RosterReference
from varde.envelope import MAX_ENVELOPE_BYTES
from varde.errors import Reason
from varde.identifiers import Lane
from varde.roster import Trust
from varde.signing import Kind
from varde_relay.admit import Carry, Judge, carry
from varde_relay.link import BURST_BYTES, MAX_BYTES_PER_SECOND, Allowance, Intake
from varde_relay.nats_link import LinkError, StreamFull
from varde_relay.pull import Fetched


class Recorder:
    """An INBOX and a peer's consumer that write down what they are told, in order."""

    def __init__(self, errors: Sequence[LinkError | None] = ()) -> None:
        self.said: list[tuple[str, ...]] = []
        self._errors = errors

    async def publish_many(
        self, messages: Sequence[tuple[str, bytes, str]]
    ) -> list[LinkError | None]:
        self.said += [("stored", subject, name) for subject, _, name, _ in messages]
        return list(self._errors) or [None] * len(messages)

    async def acknowledge(self, fetched: Fetched) -> None:
        self.said.append(("acknowledged", fetched.reply))

    async def retry_later(self, fetched: Fetched, seconds: float) -> None:
        assert seconds > 0
        self.said.append(("later", fetched.reply))

    async def give_up(self, fetched: Fetched, reason: str) -> None:
        self.said.append(("given up", fetched.reply, reason))


def fetched(raw: bytes, reply: str = "1", message_id: str = "doc.FI.1") -> Fetched:
    return Fetched(raw, message_id, pending=0, deliveries=1, stored_at=NOW, reply=reply)


def run(
    batch: Sequence[Fetched],
    recorder: Recorder,
    *,
    trust: Trust | None = None,
    lane: Lane = Lane.URGENT,
) -> list[Carry]:
    believed = trust or federation().trust
    judge = Judge(FI, EE, lambda: believed, lambda: NOW)
    return asyncio.run(carry(batch, lane, judge=judge, inbox=recorder, source=recorder))


def test_an_admitted_document_is_stored_before_the_peer_may_forget_it() -> None:
    recorder = Recorder()
    (carried,) = run([fetched(federation().envelope(FI))], recorder)
    assert isinstance(carried.decision, Admit)
    assert recorder.said == [("stored", "in.urgent.EE", "EE.doc.FI.1"), ("acknowledged", "1")]


def test_a_document_that_our_broker_did_not_store_stays_with_the_peer() -> None:
    recorder = Recorder([StreamFull("maximum bytes exceeded"), None])
    raw = federation().envelope(FI)
    carried = run([fetched(raw, "1"), fetched(raw, "2")], recorder)
    assert recorder.said[2:] == [("later", "1"), ("acknowledged", "2")]
    assert [each.not_stored is None for each in carried] == [False, True]


def test_a_refused_document_is_ended_with_its_reason_and_never_stored() -> None:
    recorder = Recorder()
    (carried,) = run([fetched(federation().envelope(LV))], recorder)
    assert carried.decision == Refuse(Reason.NOT_FOR_US, "the envelope is for LV")
    assert recorder.said == [("given up", "1", "not_for_us")]


@pytest.mark.parametrize("message_id", ["", "a b", "a\nb", "ä", "x" * 129])
def test_a_message_without_a_usable_identifier_is_malformed(message_id: str) -> None:
    recorder = Recorder()
    run([fetched(federation().envelope(FI), message_id=message_id)], recorder)
    assert recorder.said == [("given up", "1", "malformed")]


def test_a_document_from_the_future_stays_with_the_peer() -> None:
    recorder = Recorder()
    document = federation().document(EE, [FI], issued_at=NOW + 400, expires_at=NOW + 4000)
    run([fetched(federation().sign(document, Kind.RECEIPT))], recorder)
    assert recorder.said == [("later", "1")]


@pytest.mark.parametrize("transit", [None, "FI;EE"])
def test_what_may_pass_later_stays_with_its_sender_and_with_nobody_who_hands_it_on(
    transit: str | None,
) -> None:
    coast = federation()
    sender = EE if transit is None else LV
    now = coast.document(sender, [FI], id=a_document_id(1))
    ahead = coast.document(sender, [FI], issued_at=NOW + 400, expires_at=NOW + 4000)
    newer = RosterReference(coast.roster.version + 1, coast.roster.hash)
    behind = coast.document(sender, [FI], roster=newer)
    for document, suspended, reason in [
        (now, frozenset({sender}), Reason.SUSPENDED_SENDER),
        (ahead, frozenset(), Reason.FROM_THE_FUTURE),
        (behind, frozenset(), Reason.NEWER_ROSTER),
    ]:
        recorder = Recorder()
        message = replace(fetched(coast.sign(document, Kind.RECEIPT)), transit=transit)
        trust = replace(coast.trust, suspended=suspended)
        (carried,) = run([message], recorder, trust=trust)
        assert isinstance(carried.decision, Refuse)
        assert carried.decision.reason is reason
        assert carried.may_pass_later == (transit is None)
        assert recorder.said == [
            ("later", "1") if transit is None else ("given up", "1", reason.value)
        ]


def test_a_mixed_batch_keeps_each_decision_with_its_document() -> None:
    recorder = Recorder()
    good = federation().envelope(FI)
    receipt = federation().sign(federation().document(EE, [FI]), Kind.RECEIPT)
    batch = [fetched(b"rubbish", "1"), fetched(good, "2"), fetched(receipt, "3")]
    carried = run(batch, recorder)
    assert [each.fetched.reply for each in carried] == ["1", "2", "3"]
    assert recorder.said[2:] == [
        ("given up", "1", "malformed"),
        ("acknowledged", "2"),
        ("acknowledged", "3"),
    ]


def test_attack_24_a_flood_is_taken_in_at_a_bounded_rate() -> None:
    allowance = Allowance(per_second=100, burst=50)
    assert allowance.take(50, now=0.0) == 0
    assert allowance.take(20, now=0.0) == pytest.approx(0.2)
    assert allowance.take(1, now=0.2) == pytest.approx(0.01)
    assert allowance.take(50, now=100.0) == 0
    assert allowance.take(1, now=100.0) > 0


def test_attack_24_a_flood_of_large_documents_uses_up_its_bytes_before_its_number() -> None:
    intake = Intake()
    largest = fetched(bytes(MAX_ENVELOPE_BYTES))
    whole = BURST_BYTES // MAX_ENVELOPE_BYTES
    assert intake.take([largest] * whole, now=0.0) == 0
    seconds = MAX_ENVELOPE_BYTES / MAX_BYTES_PER_SECOND
    assert intake.take([largest] * 20, now=0.0) == pytest.approx(20 * seconds, abs=seconds)
    assert intake.take([fetched(b"x")], now=3.0) == 0
