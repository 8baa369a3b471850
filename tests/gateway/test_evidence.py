"""The evidence of an alert, taken at the nodes that know it, proves to a stranger what each nation signed, and no more."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import ColumnElement, select, update

from support.alerts import sample_alert
from support.desks import Office
from support.federation import EE, FI, LV, federation
from support.nodes import Clock, Node, exchange_heartbeats, running_node, running_nodes, settle
from support.sending import send
from support.tampering import tamper
from varde.acknowledgement import Response
from varde.attestation import Outcome
from varde.bulletin import Tlp
from varde.document import format_document, parse_document
from varde.encoding import sha256_base64url
from varde.evidence import Verdict, verify_export
from varde.examination import Examination, examine
from varde.identifiers import Nation
from varde.signing import Kind, parse_signed, sign
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.faults import Conflict, Forbidden, NotFound
from varde_gateway.flow.lifecycle import cancel_alert
from varde_gateway.flow.review.erasure import erase_alert
from varde_gateway.flow.review.evidence import evidence_lines, gather_evidence
from varde_gateway.flow.review.log_export import export_lines, log_lines
from varde_gateway.flow.review.retention import erase_expired
from varde_gateway.flow.review.review import Viewer
from varde_gateway.store.tables import (
    acknowledgements_table,
    checkpoints_table,
    deliveries_table,
    documents_table,
)

pytestmark = pytest.mark.asyncio
AUDITOR = Viewer("auditor", Tlp.RED)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def beats(nodes: dict[Nation, Node], clock: Clock, rounds: int = 3) -> None:
    for _ in range(rounds):
        clock.forward(10)
        await exchange_heartbeats([*nodes.values()])
        await settle([*nodes.values()])


async def answered_alert(nodes: dict[Nation, Node], clock: Clock) -> str:
    """EE to FI and LV; FI's officer sees it and answers; the answer is home, and everything witnessed."""
    alert = await send(nodes[EE], FI, LV)
    await settle([*nodes.values()])
    clock.forward(4)
    await note_displayed(nodes[FI].desk, EE, alert, "officer.fi")
    await acknowledge(
        nodes[FI].desk,
        alert,
        EE,
        officer="officer.fi",
        response=Response.ACTIONING,
        note="on our way",
        claim=None,
    )
    await settle([*nodes.values()])
    await beats(nodes, clock)
    return alert


async def taken(node: Node, alert: str, viewer: Viewer = AUDITOR, **options: Any) -> list[str]:
    found = await gather_evidence(node.desk, viewer, alert, options.get("sender"))
    return "".join([each async for each in evidence_lines(node.desk, found)]).splitlines()


def examined(lines: list[str], clock: Clock) -> Examination:
    return examine(lines, genesis=federation().id, now=clock.ms // 1000)


def troubles(found: Examination) -> list[tuple[str, str, str]]:
    return [
        (each.check, each.place, each.detail)
        for each in found.steps
        if each.outcome is not Outcome.OK
    ]


def kinds(lines: list[str]) -> list[str]:
    return [json.loads(line)["document"]["kind"] for line in lines if '{"document"' in line]


async def test_the_senders_evidence_proves_who_had_it_who_saw_it_and_who_answered(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    lines = await taken(nodes[EE], alert)
    found = examined(lines, clock)
    assert troubles(found) == []
    assert sorted(kinds(lines)) == ["acknowledgement", "alert", "receipt", "receipt", "receipt"]
    assert found.known[FI].delivered_at is not None
    assert found.known[FI].displayed_at is not None
    (answer,) = found.known[FI].answers
    assert (answer.officer, answer.response) == ("officer.fi", "actioning")
    assert found.known[LV].rank == 1


async def test_a_recipients_evidence_proves_what_it_signed_itself(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    lines = await taken(nodes[FI], alert)
    found = examined(lines, clock)
    assert troubles(found) == []
    assert found.node == FI
    assert sorted(kinds(lines)) == ["acknowledgement", "alert", "receipt", "receipt"]
    assert found.known[FI].rank == 3


async def test_taking_evidence_is_logged_and_leaves_the_next_one_as_it_was(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    first = await taken(nodes[EE], alert)
    await beats(nodes, clock)
    again = await taken(nodes[EE], alert)
    assert [each for each in first if "checkpoint" not in each and "entry" not in each] == [
        each for each in again if "checkpoint" not in each and "entry" not in each
    ]
    log = "".join([each async for each in export_lines(nodes[EE].desk, "auditor")])
    looks = [line for line in log.splitlines() if "exported" in line and alert in line]
    assert len(looks) == 2


async def test_a_cancellation_goes_with_the_alert_that_it_refers_to(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    await send(nodes[EE], FI, identifier="EE-another")
    await cancel_alert(nodes[EE].desk, alert, "a false alarm", author="operator", claim=None)
    await settle([*nodes.values()])
    await beats(nodes, clock)
    for nation in (EE, FI):
        lines = await taken(nodes[nation], alert)
        assert kinds(lines).count("alert") == 2
        found = examined(lines, clock)
        assert troubles(found) == []
        assert any("It is the Cancel of the alert" in step.detail for step in found.steps)


async def test_evidence_that_nobody_has_witnessed_yet_says_so(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await send(nodes[EE], FI)
    found = examined(await taken(nodes[EE], alert), clock)
    assert found.intact
    assert [check for check, _, _ in troubles(found)] == ["witnesses"]
    assert found.known == {}


async def test_after_an_erasure_the_digests_and_the_log_still_prove_who_had_it(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    for nation in (EE, FI):
        await erase_alert(nodes[nation].desk, alert, EE, "Order 17/2026", actor="admin")
    await beats(nodes, clock)
    for nation in (EE, FI):
        found = examined(await taken(nodes[nation], alert), clock)
        assert found.intact
        assert {check for check, _, _ in troubles(found)} <= {"document", "claims"}
        assert erased(found) == ["alert", "acknowledgement"]
        assert found.known[FI].rank == 2


def erased(found: Examination) -> list[str]:
    """The kinds of documents whose erasure is proven."""
    proven = [each for each in found.steps if (each.check, each.outcome) == ("erased", Outcome.OK)]
    return [each.place.split()[2] for each in proven]


@pytest.mark.parametrize(
    ("kind", "check"),
    [("alert", "erased"), ("acknowledgement", "erased"), ("receipt", "document")],
)
async def test_attack_47_a_document_that_was_emptied_by_hand_does_not_pass_as_erased(
    nodes: dict[Nation, Node], clock: Clock, kind: str, check: str
) -> None:
    alert = await answered_alert(nodes, clock)
    await empty(nodes[EE], documents_table.c.kind == kind)
    found = examined(await taken(nodes[EE], alert), clock)
    assert not found.intact
    assert check in {each.check for each in found.steps if each.outcome is Outcome.FAILED}


async def empty(node: Node, which: ColumnElement[bool]) -> None:
    statement = update(documents_table).where(which).values(raw=b"")
    await node.desk.ledger.write(lambda tx: tx.connection.execute(statement))


async def test_attack_47_an_erasure_that_was_only_asked_for_does_not_explain_an_empty_document(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    desk = nodes[EE].desk
    desk.policy = replace(desk.policy, erase_by_two=True)
    asked = await erase_alert(desk, alert, None, "Order 17/2026", actor="admin.one")
    assert asked["state"] == "waiting"
    await beats(nodes, clock)
    assert troubles(examined(await taken(nodes[EE], alert), clock)) == []
    await empty(nodes[EE], documents_table.c.id == alert)
    found = examined(await taken(nodes[EE], alert), clock)
    assert ("erased", "no proven entry of the log says that it was erased") in [
        (check, detail) for check, _, detail in troubles(found)
    ]


async def test_a_cancellation_that_was_erased_goes_with_its_alert_and_with_its_erasure(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    cancelled = await cancel_alert(
        nodes[EE].desk, alert, "a false alarm", author="operator", claim=None
    )
    await settle([*nodes.values()])
    for nation in (EE, FI):
        await erase_alert(nodes[nation].desk, str(cancelled["id"]), EE, "Order 18", actor="admin")
    await beats(nodes, clock)
    for nation in (EE, FI):
        found = examined(await taken(nodes[nation], alert), clock)
        assert found.intact
        assert erased(found) == ["alert"]


async def test_an_answer_that_came_after_the_erasure_is_erased_with_an_entry_of_its_own(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    await erase_alert(nodes[EE].desk, alert, None, "Order 17/2026", actor="admin")
    await acknowledge(
        nodes[FI].desk,
        alert,
        EE,
        officer="officer.fi",
        response=Response.ASSISTING,
        note="a second patrol",
        claim=None,
    )
    await settle([*nodes.values()])
    await erase_expired(nodes[EE].desk)
    await beats(nodes, clock)
    found = examined(await taken(nodes[EE], alert), clock)
    assert found.intact
    assert erased(found) == ["alert", "acknowledgement", "acknowledgement"]


async def test_attack_47_an_answer_exchanged_by_two_nations_together_does_not_fit_the_log(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """FI signs the same id again with another response, and EE puts it into its database."""
    alert = await answered_alert(nodes, clock)
    receipt = select(deliveries_table.c.receipt_id).where(
        deliveries_table.c.document_id == alert, deliveries_table.c.recipient == FI
    )
    answer = select(acknowledgements_table.c.id)
    for kind, which in ((Kind.ACKNOWLEDGEMENT, answer), (Kind.RECEIPT, receipt)):
        await exchange(nodes, kind, documents_table.c.id == which.scalar_subquery())
        found = examined(await taken(nodes[EE], alert), clock)
        said = f"it speaks of another {kind.value} with this id: the digests differ"
        assert said in [detail for _, _, detail in troubles(found)]


async def exchange(nodes: dict[Nation, Node], kind: Kind, which: ColumnElement[bool]) -> None:
    signed = select(documents_table.c.raw).where(which)
    old = await nodes[EE].desk.ledger.read(lambda c: c.execute(signed).scalar_one())
    document = parse_document(parse_signed(old).payload)
    body = json.loads(json.dumps(document.body).replace("actioning", "declined"))
    again = replace(document, body=body, issued_at=document.issued_at + 1)
    raw = sign(format_document(again), kind, nodes[FI].desk.keys)
    values = {"raw": raw, "digest": sha256_base64url(raw)}
    statement = update(documents_table).where(which).values(values)
    await nodes[EE].desk.ledger.write(lambda tx: tx.connection.execute(statement))


async def test_nobody_takes_evidence_above_his_clearance(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert = await answered_alert(nodes, clock)
    with pytest.raises(Forbidden, match="cleared up to TLP:GREEN"):
        await gather_evidence(nodes[EE].desk, Viewer("operator", Tlp.GREEN), alert, None)


async def test_an_alert_that_is_not_here_has_no_evidence(nodes: dict[Nation, Node]) -> None:
    alert = await send(nodes[EE], FI)
    for wanted, sender in ((nodes[EE].desk.new_id(), None), (alert, "LV")):
        with pytest.raises(NotFound):
            await gather_evidence(nodes[EE].desk, AUDITOR, wanted, sender)


@asynccontextmanager
async def copied(
    directory: Path, clock: Clock, *statements: str
) -> AsyncIterator[tuple[Node, str]]:
    """EE's node over a copy of its database, which somebody has changed by hand; and the alert in it."""
    urls = {each: f"sqlite:///{directory / f'{each}.db'}" for each in federation().parties}
    async with running_nodes(urls, federation(), clock) as nodes:
        alert = await answered_alert(nodes, clock)
        assert troubles(examined(await taken(nodes[EE], alert), clock)) == []
        assert exported(await whole_log(nodes[EE]), clock).intact
    with (
        closing(sqlite3.connect(directory / "EE.db")) as original,
        closing(sqlite3.connect(directory / "copy.db")) as copy,
    ):
        original.backup(copy)
    tamper(directory / "copy.db", *statements)
    party = federation().parties[EE]
    url = f"sqlite:///{directory / 'copy.db'}"
    async with running_node(url, party, federation(), clock) as node:
        yield node, alert


async def whole_log(node: Node) -> list[str]:
    return "".join([each async for each in export_lines(node.desk, "auditor")]).splitlines()


async def stored_log(node: Node) -> list[str]:
    """The log as it is stored, up to the newest checkpoint, with nothing written to it."""
    size, note = await node.desk.ledger.read(
        lambda c: c.execute(
            select(checkpoints_table.c.size, checkpoints_table.c.note)
            .order_by(checkpoints_table.c.size.desc())
            .limit(1)
        ).one()
    )
    return "".join([each async for each in log_lines(node.desk, size, note)]).splitlines()


def exported(lines: list[str], clock: Clock) -> Verdict:
    *_, verdict = verify_export(lines, genesis=federation().id, now=clock.ms // 1000)
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        (
            "UPDATE document SET raw = CAST(replace(CAST(raw AS TEXT), 'eyJ', 'eyK') AS BLOB)",
            "document",
        ),
        ("UPDATE document SET digest = 'A' || substr(digest, 2) WHERE kind = 'alert'", "document"),
        ("UPDATE audit_leaf SET leaf = replace(leaf, 'operator', 'nobody')", "entry"),
        ("UPDATE audit_leaf SET hash = zeroblob(32)", "entry"),
        ("UPDATE audit_node SET hash = zeroblob(32)", "entry"),
        ("UPDATE acknowledgement SET alert_sender = 'LV'", "claims"),
        ("UPDATE delivery SET state = 'sent'", "claims"),
        ("DELETE FROM cosignature", "witnesses"),
        ("UPDATE cosignature SET line = replace(line, '/lv/', '/fi/')", "witnesses"),
    ],
)
async def test_attack_47_evidence_from_a_database_changed_by_hand_names_the_place(
    tmp_path: Path, clock: Clock, statement: str, check: str
) -> None:
    async with copied(tmp_path, clock, statement) as (node, alert):
        found = examined(await taken(node, alert), clock)
        assert check in {each for each, _, _ in troubles(found)}


async def test_attack_47_a_tree_with_a_hole_proves_nothing_and_says_what_to_do(
    tmp_path: Path, clock: Clock
) -> None:
    async with copied(tmp_path, clock, "DELETE FROM audit_node") as (node, alert):
        with pytest.raises(Conflict, match="varde audit verify"):
            await taken(node, alert)


_ROOM = 'UPDATE audit_leaf SET "index" = -"index" WHERE "index" >= 6'
_SHIFT = 'UPDATE audit_leaf SET "index" = 1 - "index" WHERE "index" < 0'
_COPY = (
    'INSERT INTO audit_leaf SELECT 6, kind, at, actor, leaf, hash FROM audit_leaf WHERE "index" = 2'
)


@pytest.mark.parametrize(
    ("statements", "fault", "first"),
    [
        (
            ["UPDATE audit_leaf SET leaf = replace(leaf, 'at\":1', 'at\":2') WHERE \"index\" = 6"],
            "changed",
            6,
        ),
        (['DELETE FROM audit_leaf WHERE "index" = 6'], "deleted", 6),
        ([_ROOM, _SHIFT, _COPY], "inserted", 2),
        (
            [
                'UPDATE audit_leaf SET "index" = -1 WHERE "index" = 6',
                'UPDATE audit_leaf SET "index" = 6 WHERE "index" = 8',
                'UPDATE audit_leaf SET "index" = 8 WHERE "index" = -1',
            ],
            "swapped",
            6,
        ),
        (['UPDATE audit_leaf SET "index" = 100000 WHERE "index" = 6'], "deleted", 6),
        (['DELETE FROM audit_leaf WHERE "index" > 9'], "truncated", 10),
    ],
    ids=["edited", "deleted", "inserted", "swapped", "reordered", "truncated"],
)
async def test_attack_47_the_log_of_a_database_changed_by_hand_names_entry_and_fault(
    tmp_path: Path, clock: Clock, statements: list[str], fault: str, first: int
) -> None:
    async with copied(tmp_path, clock, *statements) as (node, _):
        verdict = exported(await stored_log(node), clock)
        assert (fault, first) in {(each.fault.value, each.first) for each in verdict.findings}


async def test_the_log_is_exported_with_its_rosters_and_witnesses(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await answered_alert(nodes, clock)
    verdict = exported(await whole_log(nodes[EE]), clock)
    assert (verdict.intact, verdict.keys_pinned) == (True, True)
    assert verdict.attested is not None
    assert set(verdict.attested.witnesses) == {FI, LV}


async def test_a_reader_takes_the_file_from_the_api(office: Office) -> None:
    order = {"to": ["FI"], "tlp": "GREEN", "alert": sample_alert(scope="Public")}
    del order["alert"]["restriction"]
    sent = await office.post("/v1/alerts", "operator", json=order)
    assert sent.status_code == 202, sent.text
    path = f"/v1/alerts/{sent.json()['id']}/evidence"
    for role in ("operator", "officer", "approver", "auditor"):
        answer = await office.get(path, role)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/jsonl"
        assert sent.json()["id"] in answer.headers["content-disposition"]
        assert examine(answer.text.splitlines(), genesis=federation().id).intact
    assert (await office.get(path, "admin")).status_code == 403
    assert (await office.get(path, "auditor", params={"from": "LV"})).status_code == 404
    looks = [each["actor"] for each in await office.audit("exported")]
    assert sorted(looks) == ["approver.ee", "auditor.ee", "officer.ee", "operator.ee"]
