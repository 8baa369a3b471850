"""The evidence of an alert, taken at the nodes that know it, proves to a stranger what each nation signed, and no more."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from support.federation import EE, FI, LV, federation
from support.nodes import Clock, Node, exchange_heartbeats, running_nodes, settle
from support.sending import send
from varde.acknowledgement import Response
from varde.attestation import Outcome
from varde.bulletin import Tlp
from varde.evidence import Fault, Verdict, verify_export
from varde.examination import Examination, examine
from varde.identifiers import Nation
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.evidence import evidence_lines, gather_evidence
from varde_gateway.flow.faults import Forbidden, NotFound
from varde_gateway.flow.lifecycle import cancel_alert
from varde_gateway.flow.review import Viewer
from varde_gateway.flow.trail import export_lines

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
