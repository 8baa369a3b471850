"""The attacks of the research notes that need a node at work: replays, races, crashes, clocks, and what an attacker learns."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from support.federation import EE, FI, a_document_id, federation, seed
from support.nodes import Clock, Node, carry, running_node, running_nodes, settle
from support.sending import count_alerts, delivery, send
from varde.acknowledgement import Acknowledgement, Response, format_acknowledgement
from varde.auditlog import AuditKind
from varde.encoding import JsonObject, decode_base64url, encode_base64url, sha256_base64url
from varde.identifiers import DocumentId, Lane, Nation
from varde.prekeys import Prekeys, format_prekeys
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.sealing import seal
from varde.signing import Kind
from varde_gateway.flow.compose import Composed, compose_now
from varde_gateway.flow.memory.refusals import MAX_WAITING, ONE_BY_ONE
from varde_gateway.store.tables import audit_leaves_table, peer_prekeys_table

pytestmark = pytest.mark.asyncio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def reasons(node: Node) -> list[str]:
    return [each.partition(":")[0] for each in await details(node)]


async def details(node: Node) -> list[str]:
    rows = await node.desk.ledger.read(
        lambda c: c.execute(
            select(audit_leaves_table.c.leaf)
            .where(audit_leaves_table.c.kind == AuditKind.REFUSED.value)
            .order_by(audit_leaves_table.c.index)
        ).all()
    )
    return [json.loads(leaf)["detail"] for (leaf,) in rows]


async def bring(nodes: dict[Nation, Node]) -> None:
    """What EE has to send reaches the INBOX of FI."""
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])


async def test_attack_17_what_a_restored_backup_knows_is_not_taken_twice(
    tmp_path: Path, clock: Clock
) -> None:
    parties = federation().parties
    urls = {nation: f"sqlite:///{tmp_path / nation}.db" for nation in parties}
    async with running_nodes(urls, federation(), clock) as nodes:
        await send(nodes[EE], FI)
        await bring(nodes)
        message = nodes[FI].broker.inbox[0]
        await nodes[FI].take_in()
    backup = tmp_path / "backup.db"
    shutil.copy(tmp_path / "FI.db", backup)
    shutil.copy(backup, tmp_path / "FI.db")
    async with running_node(urls[FI], parties[FI], federation(), clock) as restored:
        restored.broker.inbox.extend([message, message])
        assert await restored.take_in() == ["acknowledged", "acknowledged"]
        assert await count_alerts(restored) == 1


async def test_attack_18_the_same_envelope_on_two_workers_at_once_is_one_alert(
    nodes: dict[Nation, Node],
) -> None:
    await send(nodes[EE], FI)
    await bring(nodes)
    message = nodes[FI].broker.inbox.popleft()
    nodes[FI].broker.inbox.append(message)
    first = asyncio.create_task(nodes[FI].take_in())
    await asyncio.sleep(0)
    nodes[FI].broker.inbox.extend([message] * 5)
    await asyncio.gather(first, nodes[FI].take_in(), nodes[FI].take_in())
    assert await count_alerts(nodes[FI]) == 1


async def test_attack_19_prekeys_of_a_lower_sequence_never_replace_newer_ones(
    nodes: dict[Nation, Node],
) -> None:
    known = nodes[FI].desk.peer_prekeys[EE]
    older = Prekeys(sequence=1, keys=known[:1])
    document = compose_now(
        nodes[EE].desk,
        Kind.PREKEYS,
        [FI],
        format_prekeys(older),
        lane=Lane.URGENT,
        life_seconds=3600,
    )
    nodes[FI].broker.inbox.append((document.raw, Lane.URGENT, EE, None))
    await nodes[FI].take_in()
    assert nodes[FI].desk.peer_prekeys[EE] == known
    sequence = await nodes[FI].desk.ledger.read(
        lambda c: c.scalar(
            select(peer_prekeys_table.c.sequence).where(peer_prekeys_table.c.nation == EE)
        )
    )
    assert sequence is not None
    assert sequence > 1


def old_prekeys(nodes: dict[Nation, Node], number: int) -> bytes:
    body = format_prekeys(Prekeys(sequence=1, keys=nodes[FI].desk.peer_prekeys[EE][:1]))
    return say(nodes, Kind.PREKEYS, body).raw


def reused_id(nodes: dict[Nation, Node], number: int) -> bytes:
    """A receipt for nothing under one id, each with another moment in it."""
    receipted = Receipted(a_document_id(number), sha256_base64url(b""), nodes[EE].desk.now_ms())
    body = format_receipt(Receipt(Stage.DELIVERED, (receipted,)))
    return say(nodes, Kind.RECEIPT, body, a_document_id(1)).raw


def foreign_acknowledgement(nodes: dict[Nation, Node], number: int) -> bytes:
    answer = Acknowledgement(
        a_document_id(number),
        sha256_base64url(b""),
        "nobody",
        Response.ACKNOWLEDGED,
        "",
        nodes[EE].desk.now_ms(),
    )
    said = say(nodes, Kind.ACKNOWLEDGEMENT, format_acknowledgement(answer))
    key = nodes[EE].desk.peer_prekeys[FI][0].prekey
    header = federation().header(said.document, kid=key.kid, sequence=0)
    return seal(said.raw, header, key, content_key=seed(f"key {number}"), iv=seed("iv")[:12])


def say(
    nodes: dict[Nation, Node], kind: Kind, body: JsonObject, document: DocumentId | None = None
) -> Composed:
    desk = nodes[EE].desk
    return compose_now(
        desk, kind, [FI], body, lane=Lane.URGENT, life_seconds=3600, document=document
    )


@pytest.mark.parametrize(
    ("useless", "reason", "of_use"),
    [
        (old_prekeys, "replayed", 0),
        (reused_id, "replayed", 1),
        (foreign_acknowledgement, "bad_body", 0),
    ],
)
async def test_attack_24_valid_documents_of_no_use_are_recorded_one_by_one_for_a_while_then_counted(
    nodes: dict[Nation, Node],
    clock: Clock,
    useless: Callable[[dict[Nation, Node], int], bytes],
    reason: str,
    of_use: int,
) -> None:
    before = len(await reasons(nodes[FI]))
    for number in range(of_use + ONE_BY_ONE + 20):
        raw = useless(nodes, number)
        nodes[FI].broker.inbox.append((raw, Lane.URGENT, EE, None))
    await nodes[FI].take_in()
    assert (await reasons(nodes[FI]))[before:] == [reason] * ONE_BY_ONE
    clock.forward(61)
    await nodes[FI].beat()
    told = f"20 more documents refused within a minute: 20 {reason}"
    assert (await details(nodes[FI]))[before + ONE_BY_ONE :] == [told]


async def test_attack_20_a_crash_between_commit_and_acknowledgement_makes_no_second_alert(
    nodes: dict[Nation, Node],
) -> None:
    alert_id = await send(nodes[EE], FI)
    await bring(nodes)
    message = nodes[FI].broker.inbox[0]
    await nodes[FI].take_in()
    # The broker never heard the acknowledgement and gives it again.
    nodes[FI].broker.inbox.append(message)
    await nodes[FI].take_in()
    await settle([*nodes.values()])
    assert await count_alerts(nodes[FI]) == 1
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_attack_22_a_clock_ten_minutes_wrong_loses_nothing_once_it_is_set_right(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await bring(nodes)
    messages = [*nodes[FI].broker.inbox]
    clock.ms -= 600_000
    assert set(await nodes[FI].take_in()) == {"retried"}
    assert await count_alerts(nodes[FI]) == 0
    clock.ms += 600_000
    nodes[FI].broker.inbox.extend(messages)
    await nodes[FI].take_in()
    await settle([*nodes.values()])
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_a_member_that_fills_the_inbox_with_documents_from_the_future_is_refused_what_is_too_many(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await bring(nodes)
    message = nodes[FI].broker.inbox.pop()
    clock.ms -= 600_000
    nodes[FI].broker.inbox.extend([message] * (2 * MAX_WAITING))
    answers = await nodes[FI].take_in()
    # Far fewer wait than the broker leaves unanswered (4096): the documents of others still come through.
    assert (answers.count("retried"), answers.count("acknowledged")) == (MAX_WAITING, MAX_WAITING)
    assert set(await reasons(nodes[FI])) == {"from_the_future"}
    clock.ms += 600_000
    nodes[FI].broker.inbox.append(message)
    await nodes[FI].take_in()
    assert await count_alerts(nodes[FI]) == 1


async def test_attack_22_a_clock_that_steps_back_between_two_alerts_stops_nothing(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    first = await send(nodes[EE], FI)
    clock.ms -= 200_000
    second = await send(nodes[EE], FI)
    clock.forward(20)
    await settle([*nodes.values()])
    clock.forward(300)
    await settle([*nodes.values()])
    for alert_id in (first, second):
        assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
    assert await count_alerts(nodes[FI]) == 2


async def test_attack_23_every_failure_looks_the_same_from_outside_and_is_named_inside(
    nodes: dict[Nation, Node],
) -> None:
    await send(nodes[EE], FI)
    await bring(nodes)
    raw = nodes[FI].broker.inbox.popleft()[0]
    value = json.loads(raw)

    def spoiled(member: str) -> bytes:
        bytes_ = bytearray(decode_base64url(value[member]))
        bytes_[0] ^= 1
        changed = value | {member: encode_base64url(bytes(bytes_))}
        return json.dumps(changed, separators=(",", ":")).encode()

    unsigned = federation().seal(
        federation()
        .sign(federation().document())
        .replace(b'"signature":"', b'"signature":"AAAA', 1)
        .replace(b'AAAA"', b'"', 1),
        federation().document(),
    )
    for wrong in (spoiled("encrypted_key"), spoiled("ciphertext"), spoiled("tag"), unsigned):
        before = {key: len(queue) for key, queue in nodes[FI].broker.out.items()}
        nodes[FI].broker.inbox.append((wrong, Lane.URGENT, EE, None))
        assert await nodes[FI].take_in() == ["acknowledged"]
        await nodes[FI].work()
        assert {key: len(queue) for key, queue in nodes[FI].broker.out.items()} == before
    named = (await reasons(nodes[FI]))[-4:]
    assert named[:3] == ["bad_wrap", "bad_ciphertext", "bad_ciphertext"]
    assert len(named) == 4
