"""Witnesses that are not members cosign our log as well, over HTTP; whatever they answer, nothing else is touched."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select
from starlette.responses import Response

from support.desks import Office
from support.federation import EE, NOW, federation, seed
from support.nodes import Clock, exchange_heartbeats, running_nodes, settle
from support.witnesses import OutsideWitness, serving
from varde.auditlog import AuditKind
from varde.checkpoint import LogKey, cosigned_at, open_checkpoint
from varde.evidence import Verdict, verify_export
from varde_gateway.flow.log.outside_witnesses import ask_outside
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.log.witness_report import cosigned_note, witnessed_checkpoint
from varde_gateway.flow.memory.log_talk import OutsideTalk
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.store.tables import cosignatures_table
from varde_gateway.store.tree import log_size
from varde_gateway.witness_client import WitnessClient

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client() -> AsyncIterator[WitnessClient]:
    async with WitnessClient() as running:
        yield running


@pytest_asyncio.fixture
async def witness(office: Office) -> AsyncIterator[OutsideWitness]:
    key = log_key(office)
    async with serving(OutsideWitness("witness.example/a", {key.name: key})) as running:
        office.node.desk.outside = (OutsideTalk(running.key, running.url),)
        yield running


def log_key(office: Office) -> LogKey:
    return office.node.desk.log_signer.key


async def grow(office: Office, entries: int = 3) -> int:
    def add(tx: Any) -> None:
        for number in range(entries):
            tx.audit(AuditKind.SENT, "op", [("document", f"d{number}")])

    await office.node.desk.ledger.write(add)
    return await office.node.desk.ledger.read(log_size)


async def outside(office: Office) -> dict[str, Any]:
    answer = await office.get("/v1/audit/witnesses", "auditor")
    [view] = answer.json()["outside"]
    assert isinstance(view, dict)
    return view


async def kept(office: Office) -> list[Any]:
    return [
        *await office.node.desk.ledger.read(lambda c: c.execute(select(cosignatures_table)).all())
    ]


async def test_a_witness_outside_the_federation_cosigns_what_has_grown(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    for _ in range(3):
        size = await grow(office)
        await ask_outside(office.node.desk, client)
        view = await outside(office)
        assert (view["size"], view["trouble"]) == (size, None)
        assert witness.known[log_key(office).name].size == size
    rows = await kept(office)
    assert len(rows) == len(witness.asked) == 3
    for row in rows:
        note = await office.node.desk.ledger.read(lambda c, s=row.size: cosigned_note(c, s, ()))  # type: ignore[misc] # the default binds the row
        assert open_checkpoint(note + row.line, log_key(office)).size == row.size
        assert cosigned_at(note + row.line, witness.key) == NOW


async def test_nothing_is_asked_while_the_log_has_not_grown(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    await grow(office)
    await ask_outside(office.node.desk, client)
    await ask_outside(office.node.desk, client)
    assert len(witness.asked) == 1


async def test_a_post_quantum_witness_is_understood(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    witness.post_quantum = True
    office.node.desk.outside = (OutsideTalk(witness.key, witness.url),)
    size = await grow(office)
    await ask_outside(office.node.desk, client)
    assert (await outside(office))["size"] == size


async def test_after_a_restart_the_witness_goes_on_from_what_it_has_cosigned(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    first = await grow(office)
    await ask_outside(office.node.desk, client)
    office.node.desk.outside = (OutsideTalk(witness.key, witness.url),)
    await grow(office)
    await ask_outside(office.node.desk, client)
    assert [each.partition("\n")[0] for each in witness.asked] == ["old 0", f"old {first}"]


async def test_a_witness_that_has_stored_more_than_we_know_is_asked_from_there(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    size = await grow(office)
    note = await checkpoint(office.node.desk)
    witness.known[log_key(office).name] = open_checkpoint(note, log_key(office))
    await ask_outside(office.node.desk, client)
    assert [each.partition("\n")[0] for each in witness.asked] == ["old 0", f"old {size}"]
    assert (await outside(office))["size"] == size


async def test_a_witness_that_holds_more_of_our_log_than_we_is_a_trouble(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    name = log_key(office).name
    key = office.node.desk.log_signer
    witness.known[name] = open_checkpoint(
        key.sign_checkpoint(900, seed("root"), NOW), log_key(office)
    )
    await grow(office)
    await ask_outside(office.node.desk, client)
    view = await outside(office)
    assert view["size"] is None
    assert "900 entries of our log" in view["trouble"]
    assert "older copy" in view["trouble"]
    assert await kept(office) == []


async def test_a_witness_that_holds_another_root_of_the_same_size_is_a_trouble(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    size = await grow(office)
    other = office.node.desk.log_signer.sign_checkpoint(size, seed("another root"), NOW)
    witness.known[log_key(office).name] = open_checkpoint(other, log_key(office))
    await ask_outside(office.node.desk, client)
    assert "another root" in (await outside(office))["trouble"]
    assert await kept(office) == []


async def test_attack_39_a_witness_cannot_make_us_keep_what_it_did_not_sign(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    await grow(office)
    impostor = OutsideWitness("witness.example/b", {log_key(office).name: log_key(office)})
    async with serving(impostor) as elsewhere:
        office.node.desk.outside = (OutsideTalk(witness.key, elsewhere.url),)
        await ask_outside(office.node.desk, client)
    assert "its cosignature is refused" in (await outside(office))["trouble"]
    assert await kept(office) == []


async def test_a_witness_whose_clock_is_ahead_is_not_believed(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    witness.ahead = 301
    await grow(office)
    await ask_outside(office.node.desk, client)
    assert "301 s ahead" in (await outside(office))["trouble"]
    assert await kept(office) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Response("", 400), "does not understand"),
        (Response("", 403), "vkey"),
        (Response("", 404), "does not witness our log"),
        (Response("", 422), "does not continue"),
        (Response("", 500), "status 500"),
        (Response("", 302, {"location": "http://127.0.0.1:1/"}), "status 302"),
        (Response("soon", 409), "without the size"),
        (Response("1" * 30, 409), "without the size"),
        (Response("0\n", 409), "another root"),
        (Response("1\n", 409), "another root"),
        (Response(b"\xff\xfe", 200), "not text"),
        (Response("", 200), "refused"),
        (Response("x" * 70_000, 200), "more than 64 KiB"),
    ],
)
async def test_whatever_a_witness_answers_is_one_line_of_trouble(
    office: Office, witness: OutsideWitness, client: WitnessClient, answer: Response, said: str
) -> None:
    await grow(office)
    witness.answer = answer
    await ask_outside(office.node.desk, client)
    assert said in (await outside(office))["trouble"]
    assert await kept(office) == []
    witness.answer = None
    await ask_outside(office.node.desk, client)
    assert (await outside(office))["trouble"] is None


async def test_a_witness_that_is_not_there_keeps_the_others_from_nothing(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    away = OutsideTalk(OutsideWitness("away.example", {}).key, "http://127.0.0.1:1")
    office.node.desk.outside = (away, *office.node.desk.outside)
    size = await grow(office)
    await ask_outside(office.node.desk, client)
    answer = await office.get("/v1/audit/witnesses", "auditor")
    first, second = answer.json()["outside"]
    assert "cannot be asked" in first["trouble"]
    assert second["size"] == size


async def test_what_a_witness_signs_counts_in_no_majority_of_the_members(
    office: Office, witness: OutsideWitness, client: WitnessClient
) -> None:
    await grow(office)
    await ask_outside(office.node.desk, client)
    answer = await office.get("/v1/audit/witnesses", "auditor")
    assert answer.json()["log"]["witnessed"] is None


async def test_its_line_stands_under_what_the_members_have_witnessed(
    new_database: Callable[[], str], client: WitnessClient
) -> None:
    clock, urls = Clock(), {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as nodes:
        desk = nodes[EE].desk
        for _ in range(3):
            clock.forward(10)
            await exchange_heartbeats([*nodes.values()])
            await settle([*nodes.values()])
        key = desk.log_signer.key
        async with serving(OutsideWitness("witness.example/a", {key.name: key})) as witness:
            desk.outside = (OutsideTalk(witness.key, witness.url),)
            await ask_outside(desk, client)
        note = await witnessed_checkpoint(desk)
        assert note is not None
        assert cosigned_at(note, witness.key) == NOW
        lines = [line async for text in export_lines(desk, "auditor") for line in text.splitlines()]
        assert witness.name in "".join(lines)
        *_, verdict = verify_export(lines, genesis=federation().id, now=clock.ms // 1000)
        assert isinstance(verdict, Verdict)
        assert verdict.findings == ()
        assert verdict.attested is not None
