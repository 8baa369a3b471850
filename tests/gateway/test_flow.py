"""The life of an alert through the real flow of three nodes, stepped by hand, and every way in which it may stumble."""

import json
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from support.alerts import sample_alert
from support.federation import EE, FI, LV, federation
from support.nodes import Clock, Node, carry, running_node, running_nodes, settle
from support.sending import audited, count_alerts, delivery, seen, send
from varde.acknowledgement import Response
from varde.alert import parse_alert
from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.identifiers import Nation
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.idempotency import Claim
from varde_gateway.flow.lifecycle import cancel_alert, update_alert
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.overdue import notice_overdue
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.store.alerts import list_alerts
from varde_gateway.store.tables import deliveries_table

pytestmark = pytest.mark.asyncio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def urls(new_database: Callable[[], str]) -> dict[Nation, str]:
    return {nation: new_database() for nation in federation().parties}


@pytest_asyncio.fixture
async def nodes(urls: dict[Nation, str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def test_an_alert_is_sent_sealed_opened_receipted_and_audited_at_both_ends(
    nodes: dict[Nation, Node],
) -> None:
    alert_id = await send(nodes[EE], FI, LV)
    await settle(list(nodes.values()))
    for nation in (FI, LV):
        received = await seen(nodes[nation], alert_id)
        assert received is not None
        assert received["direction"] == "in"
        assert received["alert"] == sample_alert()
        sent = await delivery(nodes[EE], alert_id, nation)
        assert sent["state"] == "delivered"
        assert sent["receipt"]
        assert await audited(nodes[nation], alert_id) == ["received"]
    assert await audited(nodes[EE], alert_id) == ["sent", "receipted", "receipted"]


async def test_what_is_carried_twice_has_one_visible_effect_and_is_receipted_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])
    message = nodes[FI].broker.inbox[0]
    nodes[FI].broker.inbox.append(message)
    assert await nodes[FI].take_in() == ["acknowledged", "acknowledged"]
    nodes[FI].broker.inbox.append(message)
    assert await nodes[FI].take_in() == ["acknowledged"]
    assert await count_alerts(nodes[FI]) == 1
    assert await audited(nodes[FI], alert_id) == ["received"]
    await settle(list(nodes.values()))
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_attack_13_a_replay_after_restart_is_still_known(
    urls: dict[Nation, str], clock: Clock
) -> None:
    parties = federation().parties
    async with running_nodes(urls, federation(), clock) as nodes:
        await send(nodes[EE], FI)
        await nodes[EE].work()
        await carry(nodes[EE], nodes[FI])
        message = nodes[FI].broker.inbox[0]
        await nodes[FI].take_in()
    async with running_node(urls[FI], parties[FI], federation(), clock) as again:
        again.broker.inbox.append(message)
        await again.take_in()
        assert await count_alerts(again) == 1


async def test_a_lost_receipt_is_given_again_when_the_document_comes_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])
    await nodes[FI].take_in()
    await nodes[FI].work()
    nodes[FI].broker.out.clear()
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "sent"
    clock.forward(20)
    await settle(list(nodes.values()))
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
    assert await count_alerts(nodes[FI]) == 1


async def test_a_broker_that_lost_its_store_gets_everything_again_from_the_database(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    nodes[EE].broker.out.clear()
    clock.forward(20)
    await settle(list(nodes.values()))
    assert await seen(nodes[FI], alert_id) is not None


async def test_what_the_broker_still_holds_is_not_published_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await nodes[EE].work()
    held = {key: len(queue) for key, queue in nodes[EE].broker.out.items()}
    for _ in range(5):
        clock.forward(60)
        await nodes[EE].work()
    assert {key: len(queue) for key, queue in nodes[EE].broker.out.items()} == held


async def test_a_broker_that_is_away_keeps_the_delivery_queued_and_visible(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    nodes[EE].broker.down = True
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    waiting = await delivery(nodes[EE], alert_id, FI)
    assert waiting["state"] == "queued"
    assert waiting["waiting_for"] == "the broker is away"
    nodes[EE].broker.down = False
    clock.forward(20)
    await settle(list(nodes.values()))
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_without_a_prekey_the_delivery_waits_visibly_and_goes_when_one_arrives(
    nodes: dict[Nation, Node],
) -> None:
    known = nodes[EE].desk.peer_prekeys
    nodes[EE].desk.peer_prekeys = {}
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    waiting = await delivery(nodes[EE], alert_id, FI)
    assert (waiting["state"], waiting["waiting_for"]) == ("queued", "no live prekey")
    assert not any(nodes[EE].broker.out.values())
    nodes[EE].desk.peer_prekeys = known
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(deliveries_table.update().values(next_attempt_at=tx.now))
    )
    await settle(list(nodes.values()))
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_a_delivery_that_expires_without_a_receipt_has_failed_and_says_so(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    nodes[EE].broker.down = True
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    clock.forward(nodes[EE].desk.policy.document_life_seconds + 1)
    nodes[EE].broker.down = False
    await nodes[EE].work()
    failed = await delivery(nodes[EE], alert_id, FI)
    assert failed["state"] == "failed"
    assert "expired" in failed["waiting_for"]
    assert AuditKind.FAILED.value in await audited(nodes[EE], alert_id)


async def test_an_acknowledgement_comes_back_and_moves_the_delivery_forward(
    nodes: dict[Nation, Node],
) -> None:
    alert_id = await send(nodes[EE], FI, LV)
    await settle(list(nodes.values()))
    answer = await acknowledge(
        nodes[FI].desk,
        alert_id,
        None,
        officer="Aino",
        response=Response.ASSISTING,
        note="Two boats.",
        claim=None,
    )
    assert answer["nation"] == "FI"
    assert str(answer["at"]).endswith("Z")
    await settle(list(nodes.values()))
    alert = await seen(nodes[EE], alert_id)
    assert alert is not None
    (given,) = alert["acknowledgements"]
    assert (given["nation"], given["officer"], given["response"], given["note"]) == (
        "FI",
        "Aino",
        "assisting",
        "Two boats.",
    )
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "acknowledged"
    assert (await delivery(nodes[EE], alert_id, LV))["state"] == "delivered"
    other = await seen(nodes[LV], alert_id)
    assert other is not None
    assert other["acknowledgements"] == []


async def test_a_late_receipt_never_takes_an_acknowledged_delivery_back(
    nodes: dict[Nation, Node],
) -> None:
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])
    await nodes[FI].take_in()
    await nodes[FI].work()
    (receipts,) = [queue for queue in nodes[FI].broker.out.values() if queue]
    late = receipts.popleft()
    await acknowledge(
        nodes[FI].desk,
        alert_id,
        None,
        officer="Aino",
        response=Response.ACKNOWLEDGED,
        note="",
        claim=None,
    )
    await settle(list(nodes.values()))
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "acknowledged"
    receipts.append(late)
    await settle(list(nodes.values()))
    done = await delivery(nodes[EE], alert_id, FI)
    assert done["state"] == "acknowledged"
    assert done["receipt"]


async def test_a_display_is_told_once_by_a_signed_receipt(nodes: dict[Nation, Node]) -> None:
    alert_id = await send(nodes[EE], FI)
    await settle(list(nodes.values()))
    for _ in range(2):
        await note_displayed(nodes[FI].desk, EE, alert_id, "Aino")
    await settle(list(nodes.values()))
    shown = await delivery(nodes[EE], alert_id, FI)
    assert shown["state"] == "displayed"
    assert shown["displayed_at"]
    assert (await audited(nodes[FI], alert_id)).count("displayed") == 1


async def test_an_idempotency_key_gives_the_first_answer_again_and_refuses_another_request(
    nodes: dict[Nation, Node],
) -> None:
    first = await send(nodes[EE], FI, claim=Claim("operator", "k", "digest"))
    again = await send(nodes[EE], FI, claim=Claim("operator", "k", "digest"))
    assert first == again
    with pytest.raises(Conflict):
        await send(nodes[EE], FI, claim=Claim("operator", "k", "another"))
    assert await count_alerts(nodes[EE]) == 1


async def test_an_unknown_recipient_and_oneself_are_refused_by_name(
    nodes: dict[Nation, Node],
) -> None:
    with pytest.raises(Invalid, match="UA is not a member"):
        await send(nodes[EE], FI, Nation("UA"))
    with pytest.raises(Invalid, match="at least one other nation"):
        await send(nodes[EE], EE)
    assert await count_alerts(nodes[EE]) == 0


async def test_an_update_and_a_cancellation_reach_the_same_nations_and_change_the_state(
    nodes: dict[Nation, Node],
) -> None:
    alert_id = await send(nodes[EE], FI, LV, identifier="first")
    await settle(list(nodes.values()))
    info = sample_alert()["info"]
    info[0]["severity"] = "Minor"
    updated = await update_alert(
        nodes[EE].desk, alert_id, {"info": info}, author="operator", claim=None
    )
    await settle(list(nodes.values()))
    for node in nodes.values():
        old, new = await seen(node, alert_id), await seen(node, str(updated["id"]))
        assert old is not None
        assert new is not None
        assert old["state"] == "updated"
        assert new["alert"]["msgType"] == "Update"
        assert "first" in new["alert"]["references"]
    with pytest.raises(Conflict):
        await cancel_alert(nodes[EE].desk, alert_id, "too late", author="operator", claim=None)
    cancelled = await cancel_alert(
        nodes[EE].desk, str(updated["id"]), "false alarm", author="operator", claim=None
    )
    await settle(list(nodes.values()))
    last = await seen(nodes[LV], str(cancelled["id"]))
    assert last is not None
    assert last["alert"]["note"] == "false alarm"
    assert ((await seen(nodes[LV], str(updated["id"]))) or {})["state"] == "cancelled"
    with pytest.raises(NotFound):
        await cancel_alert(nodes[FI].desk, alert_id, "not ours", author="operator", claim=None)


async def test_a_peer_cannot_cancel_an_alert_of_another_nation(nodes: dict[Nation, Node]) -> None:
    alert_id = await send(nodes[EE], FI, LV, identifier="theirs", sender="ee.border")
    await settle(list(nodes.values()))
    forged = sample_alert(
        identifier="forged",
        msgType="Cancel",
        references=f"ee.border,theirs,{sample_alert()['sent']}",
        note="never mind",
    )
    order = Order((FI,), Tlp.AMBER, parse_alert(forged))
    await send_alert(
        nodes[LV].desk, order, author="operator", document_id=nodes[LV].desk.new_id(), claim=None
    )
    await settle(list(nodes.values()))
    original = await seen(nodes[FI], alert_id)
    assert original is not None
    assert original["state"] == "received"


async def test_an_alert_that_nobody_answers_in_time_is_overdue_and_said_so_once(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI, LV)
    await settle(list(nodes.values()))
    await acknowledge(
        nodes[FI].desk,
        alert_id,
        None,
        officer="Aino",
        response=Response.ACKNOWLEDGED,
        note="",
        claim=None,
    )
    await settle(list(nodes.values()))
    clock.forward(8000)
    await notice_overdue(nodes[EE].desk)
    await notice_overdue(nodes[EE].desk)
    assert (await delivery(nodes[EE], alert_id, LV))["overdue"]
    assert not (await delivery(nodes[EE], alert_id, FI))["overdue"]
    assert (await audited(nodes[EE], alert_id)).count("overdue") == 1


async def test_the_list_of_alerts_pages_from_the_newest_to_the_oldest(
    nodes: dict[Nation, Node],
) -> None:
    sent = [await send(nodes[EE], FI) for _ in range(5)]
    listed: list[str] = []
    before: int | None = None
    while True:
        page, before = await nodes[EE].desk.ledger.read(
            lambda c, before=before: list_alerts(
                c, limit=2, before_serial=before, direction=None, state=None, now_ms=0
            )
        )
        listed += [str(each["id"]) for each in page]
        if before is None:
            break
    assert listed == sent[::-1]


async def test_garbage_and_forgeries_in_the_inbox_are_audited_and_change_nothing(
    nodes: dict[Nation, Node],
) -> None:
    from varde.identifiers import Lane  # noqa: PLC0415

    await send(nodes[EE], FI)
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])
    raw, _, sender, _ = nodes[FI].broker.inbox.popleft()
    forged = json.loads(raw)
    forged["tag"] = forged["tag"][::-1]
    for message in (b"{}", b"\xff" * 100, json.dumps(forged).encode()):
        nodes[FI].broker.inbox.append((message, Lane.URGENT, sender, None))
    assert await nodes[FI].take_in() == ["acknowledged"] * 3
    assert await count_alerts(nodes[FI]) == 0
    entries, _ = await nodes[FI].desk.ledger.read(
        lambda c: list_entries(c, limit=100, after_index=None, kind="refused")
    )
    assert len(entries) == 3
