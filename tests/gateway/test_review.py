"""The review: what an auditor finds, follows, counts and takes away; that each look is logged; and that none changes anything."""

import csv
import importlib
import inspect
import io
import json
import pkgutil
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

import varde_gateway.cli
from support.alerts import sample_alert
from support.databases import PostgresCluster
from support.desks import PASSWORD, Office, open_office, running_office
from support.federation import EE, FI, LV, federation
from support.nodes import Clock, Node, exchange_heartbeats, running_nodes, settle
from support.sending import send
from support.tampering import GUARDED, tamper
from varde.acknowledgement import Response
from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.errors import Reason
from varde.evidence import Verdict, verify_export
from varde.identifiers import Nation
from varde.order import Fault
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.beacon import reroute
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.log.cosignatures import Cosignature, keep_cosignature
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.overdue import notice_overdue
from varde_gateway.flow.people.users import Role, note_ended_access
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.flow.review.review import CSV_COLUMNS, format_csv
from varde_gateway.flow.review.statistics import OTHER, reasons_in
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.mentions import nations_of
from varde_gateway.store.review import Bounds, Order, allowed_markings, stretches
from varde_gateway.store.tables import audit_leaves_table
from varde_gateway.web.access import ACCESS, PUBLIC

ENTRIES = "/v1/audit/entries"
CUT = frozenset((EE, FI))


async def note(office: Office, *entries: tuple[AuditKind, str, list[tuple[str, str]], str]) -> None:
    """Entries of a test, one transaction each, a millisecond apart."""
    for kind, actor, subjects, detail in entries:
        office.clock.ms += 1
        await office.node.desk.ledger.write(
            lambda tx, k=kind, a=actor, s=subjects, d=detail: tx.audit(k, a, s, d)  # type: ignore[misc]
        )


async def find(office: Office, **params: Any) -> list[dict[str, Any]]:
    answer = await office.get(ENTRIES, "auditor", params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def send_as(office: Office, tlp: str = "AMBER", **overrides: Any) -> str:
    order = {"to": ["FI", "LV"], "tlp": tlp, "alert": sample_alert(**overrides)}
    answer = await office.post("/v1/alerts", "operator", json=order)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def let_in(office: Office, username: str, **more: Any) -> dict[str, str]:
    """A new auditor, and the headers of their requests."""
    person = {
        "username": username,
        "display_name": "Outside auditor",
        "password": PASSWORD,
        "roles": ["auditor"],
        **more,
    }
    answer = await office.post("/v1/users", "admin", json=person)
    assert answer.status_code == 201, answer.text
    signed_in = await office.sign_in(username)
    assert signed_in.status_code == 200, signed_in.text
    return {"Authorization": f"Bearer {signed_in.json()['access_token']}"}


@pytest.mark.asyncio
async def test_entries_are_found_by_each_condition_and_by_all_together(office: Office) -> None:
    alert_id = await send_as(office)
    await note(
        office,
        (AuditKind.OVERDUE, "node", [("document", alert_id)], "FI has not answered"),
        (AuditKind.REFUSED, "LV", [("document", alert_id)], "expired: expired 400 s ago"),
        (AuditKind.REFUSED, "FI", [], "expired: expired 500 s ago"),
        (AuditKind.SUSPENDED, "admin.ee", [("nation", "LV")], "FI is not meant here"),
    )
    refused = await find(office, kind="refused")
    assert [each["actor"] for each in refused] == ["LV", "FI"]
    both = await find(office, kind=["refused", "overdue"])
    assert [each["kind"] for each in both] == ["overdue", "refused", "refused"]
    assert [each["kind"] for each in await find(office, alert=alert_id)] == [
        "sent",
        "overdue",
        "refused",
    ]
    assert [each["kind"] for each in await find(office, nation="FI")] == [
        "sent",
        "overdue",
        "refused",
    ]
    assert {each["kind"] for each in await find(office, nation="LV")} == {
        "sent",
        "refused",
        "suspended",
    }
    assert [each["index"] for each in await find(office, actor="LV")] == [refused[0]["index"]]
    assert [each["index"] for each in await find(office, subject="LV")] != []
    assert [each["actor"] for each in await find(office, text="EXPIRED 400")] == ["LV"]
    assert [each["kind"] for each in await find(office, text=alert_id[:30])] == [
        "sent",
        "overdue",
        "refused",
        # The searches for this alert.
        "reviewed",
    ]
    all_of_it = {
        "kind": ["refused", "sent"],
        "nation": "LV",
        "alert": alert_id,
        "actor": "LV",
        "text": "expired",
        "from": refused[0]["at"],
        "until": refused[1]["at"],
    }
    assert await find(office, **all_of_it) == [refused[0]]
    assert await find(office, **{**all_of_it, "actor": "FI"}) == []


@pytest.mark.asyncio
async def test_free_text_is_text_and_no_pattern_and_no_statement(office: Office) -> None:
    await note(
        office,
        (AuditKind.REFUSED, "FI", [], "100% of it"),
        (AuditKind.REFUSED, "FI", [], "100 of_it"),
        (AuditKind.REFUSED, "FI", [], 'a "quoted" back\\slash/ Ä'),
    )
    for wanted, expected in (
        ("100%", 1),
        ("of_it", 1),
        ("%", 1),
        ("_it", 1),
        ("/", 1),
        ("\\", 1),
        ('"quoted"', 1),
        ("Ä", 1),
        ("OF", 2),
        ("' OR 1=1 --", 0),
        ("detail", 0),
        ("salt", 0),
    ):
        found = await find(office, kind="refused", text=wanted)
        assert len(found) == expected, wanted


@pytest.mark.asyncio
@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_pages_hold_every_entry_once_although_the_log_grows_meanwhile(
    office: Office, order: str
) -> None:
    await note(office, *[(AuditKind.SENT, "op", [("document", f"d{n}")], "") for n in range(17)])
    await office.token("auditor")
    expected = [each["index"] for each in await find(office, order=order, limit=200)]
    seen: list[int] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        answer = await office.get(ENTRIES, "auditor", params={"order": order, "limit": 3, **more})
        body = answer.json()
        seen += [each["index"] for each in body["items"]]
        cursor = body["next_cursor"]
        await note(office, (AuditKind.SENT, "op", [], "meanwhile"))
        pages += 1
        assert pages < 20
    # The search before this one is itself an entry by now.
    newest = max(expected) + 1
    assert seen == ([*expected, newest] if order == "oldest" else [newest, *expected])


@pytest.mark.asyncio
async def test_a_cursor_that_this_node_did_not_make_is_refused(sqlite_office: Office) -> None:
    for cursor in ("MTc", "eA", "LTE", "MS0tMQ"):
        answer = await sqlite_office.get(ENTRIES, "auditor", params={"cursor": cursor})
        assert answer.status_code == 422, cursor


@pytest.mark.asyncio
async def test_every_look_is_an_entry_with_who_and_what_and_how_many(office: Office) -> None:
    alert_id = await send_as(office)
    await find(office, kind="sent", text="very secret words", limit=1)
    (looked,) = await office.audit("reviewed")
    assert looked["actor"] == "auditor.ee"
    assert looked["detail"].startswith("search, 0 results: kind sent, text (17 characters)")
    assert "secret" not in json.dumps(looked)
    answer = await office.get(ENTRIES, "auditor", params={"limit": 1})
    cursor = answer.json()["next_cursor"]
    await office.get(ENTRIES, "auditor", params={"limit": 1, "cursor": cursor})
    await office.get(f"/v1/alerts/{alert_id}/trail", "officer")
    await office.get("/v1/audit/statistics", "admin")
    await office.get(ENTRIES, "auditor", params={"format": "csv", "kind": "sent"})
    await office.get(f"/v1/alerts/{alert_id}", "auditor")
    await office.get("/v1/alerts", "auditor")
    await office.get(f"/v1/alerts/{alert_id}", "officer")
    _, first, second, trail, figures, export, *read = await office.audit("reviewed")
    assert [each["detail"] for each in read] == ["alert", "alerts, 1 listed"]
    assert first["detail"] == "search, 1 results and more: everything"
    assert second["detail"] == "search, continued: 1 results"
    assert first["subjects"] == second["subjects"] != looked["subjects"]
    assert (trail["actor"], trail["subjects"]) == (
        "officer.ee",
        [{"label": "document", "value": alert_id}],
    )
    assert figures["actor"] == "admin.ee"
    assert export["detail"] == "export csv, 1 results: kind sent"


@pytest.mark.asyncio
async def test_an_export_holds_what_the_search_finds_in_either_form(office: Office) -> None:
    await note(
        office,
        (AuditKind.REFUSED, "FI", [("document", "d1")], '=HYPERLINK("http://x","y")'),
        (AuditKind.REFUSED, "FI", [], "+1, and\r\na line"),
        (AuditKind.SENT, "op", [], "no"),
    )
    found = await find(office, kind="refused")
    answer = await office.get(ENTRIES, "auditor", params={"kind": "refused", "format": "jsonl"})
    assert answer.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in answer.text.splitlines()] == found
    answer = await office.get(
        ENTRIES, "auditor", params={"kind": "refused"}, headers={"Accept": "text/csv"}
    )
    assert answer.headers["content-type"].startswith("text/csv")
    rows = [*csv.DictReader(io.StringIO(answer.text, newline=""))]
    assert [row["detail"] for row in rows] == [
        '\'=HYPERLINK("http://x","y")',
        "'+1, and\r\na line",
    ]
    assert [int(row["index"]) for row in rows] == [each["index"] for each in found]
    assert rows[0]["subjects"] == "document:d1"
    neither = await office.get(ENTRIES, "auditor", headers={"Accept": "image/png"})
    assert neither.status_code == 406


BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
FORMULAS = st.builds(str.__add__, st.sampled_from(BEGINS_A_FORMULA), st.text(max_size=20))


@given(st.text(max_size=20) | FORMULAS, st.text(max_size=20) | FORMULAS)
def test_a_csv_cell_comes_back_as_it_was_and_is_never_a_formula(actor: str, detail: str) -> None:
    entry: Any = {
        "index": 1,
        "at": "t",
        "kind": "sent",
        "actor": actor,
        "subjects": [],
        "detail": detail,
        "hash": "h",
        "withheld": False,
    }
    (row,) = csv.reader(io.StringIO(format_csv([entry]), newline=""))
    cells = dict(zip(CSV_COLUMNS, row, strict=True))
    for name, value in (("actor", actor), ("detail", detail)):
        assert cells[name].removeprefix("'") == value.removeprefix("'") or cells[name] == value
        assert not cells[name].startswith(BEGINS_A_FORMULA)


@pytest.mark.asyncio
async def test_what_is_above_the_clearance_is_withheld_everywhere(office: Office) -> None:
    red, green = await send_as(office, "RED"), await send_as(office, "GREEN")
    headers = await let_in(office, "outside", clearance="amber")

    async def ask(path: str, **params: Any) -> Any:
        return await office.get(path, headers=headers, params=params)

    entries = (await ask(ENTRIES, kind="sent")).json()["items"]
    assert [each["withheld"] for each in entries] == [True, False]
    assert (entries[0]["subjects"], entries[0]["detail"]) == ([], "")
    assert entries[0]["hash"]
    assert entries[1]["detail"] == "FI,LV"
    assert [
        each["index"] for each in (await ask(ENTRIES, kind="sent", text="FI,LV")).json()["items"]
    ] == [entries[1]["index"]]
    exported = await ask(ENTRIES, kind="sent", format="csv")
    assert red not in exported.text
    assert green in exported.text
    assert [each["id"] for each in (await ask("/v1/alerts")).json()["items"]] == [green]
    for path in (f"/v1/alerts/{red}", f"/v1/alerts/{red}/trail"):
        refused = await ask(path)
        assert refused.status_code == 403
        assert "TLP:RED" in refused.json()["detail"]
    assert (await ask(f"/v1/alerts/{green}/trail")).status_code == 200
    for path in ("/v1/audit/export", "/v1/audit/archive?until=2030-01-01T00:00:00Z"):
        assert (await office.get(path, headers=headers)).status_code == 403
    stream = (await ask("/v1/events", after=0, wait="false")).text
    assert green in stream
    assert '"withheld":true' in stream
    told = [line for line in stream.splitlines() if red in line]
    assert all("headline" not in line for line in told)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from(Order), st.integers(1, 10**7))
def test_a_page_looks_through_the_log_in_order_and_no_further_than_it_may(
    first: int, length: int, order: Order, span: int
) -> None:
    whole = Bounds(first, first + length - 1)
    parts = [*stretches(whole, order, span)]
    numbers = [(each.first, each.last) for each in parts]
    if order is Order.NEWEST:
        numbers.reverse()
        assert numbers[-1][1] == whole.last
    else:
        assert numbers[0][0] == whole.first
    for (_, before), (after, _) in pairwise(numbers):
        assert after == before + 1
    assert sum(each.last - each.first + 1 for each in parts) == min(length, span)
    assert [*stretches(whole, order, None)] == [whole]


def test_markings_are_ordered_from_everybody_to_the_named_readers() -> None:
    assert allowed_markings(Tlp.CLEAR) == ("CLEAR",)
    assert allowed_markings(Tlp.AMBER) == ("CLEAR", "GREEN", "AMBER")
    assert len(allowed_markings(Tlp.RED)) == 5


@pytest.mark.asyncio
async def test_an_outside_auditor_is_let_in_for_a_time_only(office: Office) -> None:
    until = "2026-12-24T00:00:00.000Z"
    office.clock.ms = 1_798_000_000_000  # 2026-12-23
    headers = await let_in(office, "outside", valid_until=until, clearance="green")
    shown = (await office.get("/v1/users/outside", "admin")).json()
    assert (shown["valid_until"], shown["clearance"]) == (until, "green")
    assert (await office.get("/v1/users/operator.ee", "admin")).json()["clearance"] == "red"
    created = (await office.audit("user_changed"))[-1]["detail"]
    assert created == f"created as auditor, clearance GREEN, until {until}"
    assert (await office.get(ENTRIES, headers=headers)).status_code == 200
    office.clock.forward(24 * 3600)
    late = await office.get(ENTRIES, headers=headers)
    assert late.status_code == 401
    again = await office.sign_in("outside")
    assert again.status_code == 401
    assert f"ended at {until}" in again.json()["detail"]
    wrong = await office.sign_in("outside", "not the password")
    assert "ended" not in wrong.json()["detail"]
    for _ in range(2):
        await note_ended_access(office.node.desk)
    assert [each["detail"] for each in await office.audit("user_changed")].count(
        "access ended"
    ) == 1
    office.tokens.clear()
    await more_time_brings_an_auditor_back(office)
    past = {
        "username": "late",
        "display_name": "Late",
        "password": PASSWORD,
        "roles": ["auditor"],
        "valid_until": "2026-01-01T00:00:00Z",
    }
    office.tokens.clear()
    assert (await office.post("/v1/users", "admin", json=past)).status_code == 422


async def more_time_brings_an_auditor_back(office: Office) -> None:
    extend = "/v1/users/outside/extend"
    later = rfc3339(office.clock.ms + 60_000)
    earlier = {"valid_until": rfc3339(office.clock.ms)}
    assert (await office.post(extend, "admin", json=earlier)).status_code == 422
    assert (await office.post(extend, "auditor", json={"valid_until": later})).status_code == 403
    missing = await office.post("/v1/users/nobody/extend", "admin", json={"valid_until": None})
    assert missing.status_code == 404
    for _ in range(2):
        given = await office.post(extend, "admin", json={"valid_until": later})
        assert given.json()["valid_until"] == later
    said = [each["detail"] for each in await office.audit("user_changed")]
    assert said.count(f"access until {later}") == 1
    assert (await office.sign_in("outside")).status_code == 200
    office.clock.forward(61)
    assert (await office.sign_in("outside")).status_code == 401
    await note_ended_access(office.node.desk)
    said = [each["detail"] for each in await office.audit("user_changed")]
    assert said.count("access ended") == 2
    assert (await office.post(extend, "admin", json={"valid_until": None})).status_code == 200
    assert (await office.sign_in("outside")).status_code == 200


@pytest.mark.asyncio
async def test_a_token_given_before_the_end_says_why_it_is_good_no_more(
    sqlite_office: Office,
) -> None:
    office = sqlite_office
    ends = office.clock.ms + 60_000
    headers = await let_in(office, "outside", valid_until=rfc3339(ends))
    assert (await office.get(ENTRIES, headers=headers)).status_code == 200
    office.clock.ms = ends
    refused = await office.get(ENTRIES, headers=headers)
    assert refused.status_code == 401
    assert f"ended at {rfc3339(ends)}" in refused.json()["detail"]
    more = {"valid_until": rfc3339(ends + 600_000)}
    assert (await office.post("/v1/users/outside/extend", "admin", json=more)).status_code == 200
    office.clock.forward(2)
    assert (await office.get(ENTRIES, headers=headers)).status_code == 401
    assert (await office.sign_in("outside")).status_code == 200


@pytest.mark.asyncio
async def test_saved_queries_are_their_owners_own(office: Office) -> None:
    wanted = {"name": "refused-by-fi", "filter": {"kind": ["refused"], "nation": "FI"}}
    saved = await office.post("/v1/audit/queries", "auditor", json=wanted)
    assert saved.status_code == 201, saved.text
    other = await let_in(office, "other")
    assert (await office.get("/v1/audit/queries", headers=other)).json()["items"] == []
    gone = await office.call("DELETE", "/v1/audit/queries/refused-by-fi", headers=other)
    assert gone.status_code == 404
    wanted["filter"] = {"text": "expired", "from": "2026-03-01T00:00:00Z"}
    await office.post("/v1/audit/queries", "auditor", json=wanted)
    (kept,) = (await office.get("/v1/audit/queries", "auditor")).json()["items"]
    assert kept["filter"]["text"] == "expired"
    assert kept["filter"]["kind"] == []
    wrong = {"name": "x", "filter": {"from": "2026-02-31T00:00:00Z"}}
    assert (await office.post("/v1/audit/queries", "auditor", json=wrong)).status_code == 422
    gone = await office.call("DELETE", "/v1/audit/queries/refused-by-fi", "auditor")
    assert gone.status_code == 200
    assert (await office.get("/v1/audit/queries", "auditor")).json()["items"] == []


class Coast:
    """EE, FI and LV with the API of each."""

    def __init__(self, offices: dict[Nation, Office], clock: Clock) -> None:
        self.offices = offices
        self.clock = clock
        self.nodes: dict[Nation, Node] = {nation: office.node for nation, office in offices.items()}

    async def trail(self, nation: Nation, alert_id: str) -> Any:
        answer = await self.offices[nation].get(f"/v1/alerts/{alert_id}/trail", "auditor")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pass_time(self, seconds: float, *cut: frozenset[Nation]) -> None:
        self.clock.forward(seconds)
        await exchange_heartbeats([*self.nodes.values()], cut)
        for node in self.nodes.values():
            await reroute(node.desk, node.broker)
        await settle([*self.nodes.values()], cut)


@pytest_asyncio.fixture
async def coast(new_database: Callable[[], str]) -> AsyncIterator[Coast]:
    clock = Clock()
    urls = {nation: new_database() for nation in federation().parties}
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(running_nodes(urls, federation(), clock))
        offices = {
            nation: await stack.enter_async_context(open_office(nodes[nation], clock))
            for nation in (EE, FI, LV)
        }
        coast = Coast(offices, clock)
        await exchange_heartbeats([*nodes.values()])
        await coast.pass_time(2)
        yield coast


@pytest.mark.asyncio
async def test_the_trail_is_one_timeline_with_clocks_ways_and_delays(coast: Coast) -> None:
    alert_id = await send(coast.nodes[EE], FI, LV)
    await settle([*coast.nodes.values()], [CUT])
    await coast.pass_time(4, CUT)
    await coast.pass_time(1, CUT)
    coast.clock.forward(2)
    await note_displayed(coast.nodes[FI].desk, EE, alert_id, "officer.fi")
    coast.clock.forward(3)
    await acknowledge(
        coast.nodes[FI].desk,
        alert_id,
        None,
        officer="officer.fi",
        response=Response.ACTIONING,
        note="",
        claim=None,
    )
    await settle([*coast.nodes.values()])
    coast.clock.forward(400)
    await notice_overdue(coast.nodes[EE].desk)

    sender = await coast.trail(EE, alert_id)
    parts = {each["nation"]: each for each in sender["nations"]}
    assert parts["FI"]["state"] == "acknowledged"
    assert parts["FI"]["via"] == ["LV"]
    assert parts["FI"]["reroutings"] == 1
    assert parts["FI"]["delays"]["sent_to_delivered_ms"] >= 3000
    assert not parts["FI"]["overdue"]
    assert parts["LV"]["overdue"]
    assert parts["LV"]["via"] == []
    steps = [(each["clock"], each["nation"], each["step"]) for each in sender["timeline"]]
    assert [*sorted(each["at"] for each in sender["timeline"])] == [
        each["at"] for each in sender["timeline"]
    ]
    for expected in (
        ("EE", "EE", "signed"),
        ("EE", "EE", "sent"),
        ("EE", "EE", "rerouted"),
        ("FI", "FI", "delivered"),
        ("LV", "LV", "delivered"),
        ("EE", "FI", "receipted"),
        ("FI", "FI", "displayed"),
        ("FI", "FI", "acknowledged"),
        ("EE", "FI", "acknowledged"),
        ("EE", "EE", "overdue"),
    ):
        assert expected in steps, expected
    stated = next(
        each
        for each in sender["timeline"]
        if each["source"] == "receipt" and each["nation"] == "FI" and each["step"] == "delivered"
    )
    assert stated["via"] == ["LV"]
    assert stated["document"]

    recipient = await coast.trail(FI, alert_id)
    (own,) = recipient["nations"]
    assert (own["state"], own["clock"], own["via"]) == ("acknowledged", "FI", ["LV"])
    assert own["delays"] == {
        "delivered_to_displayed_ms": own["delays"]["delivered_to_displayed_ms"],
        "displayed_to_acknowledged_ms": 3000,
    }
    assert ("EE", "EE", "signed") in [
        (each["clock"], each["nation"], each["step"]) for each in recipient["timeline"]
    ]
    between = await coast.trail(LV, alert_id)
    assert ("LV", "LV", "forwarded") in [
        (each["clock"], each["nation"], each["step"]) for each in between["timeline"]
    ]


@pytest.mark.asyncio
async def test_a_nation_on_the_way_has_a_trail_of_what_it_cannot_read(coast: Coast) -> None:
    alert_id = await send(coast.nodes[EE], FI)
    await settle([*coast.nodes.values()], [CUT])
    await coast.pass_time(4, CUT)
    between = await coast.trail(LV, alert_id)
    assert between["alert"] is None
    assert between["nations"] == []
    assert between["timeline"][0]["step"] == "forwarded"
    unknown = await coast.offices[LV].get(
        "/v1/alerts/019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b/trail", "auditor"
    )
    assert unknown.status_code == 404


@pytest.mark.asyncio
async def test_statistics_count_what_happened_in_the_time_asked_for(coast: Coast) -> None:
    office = coast.offices[EE]
    before = await office.get("/v1/audit/statistics", "auditor")
    assert before.json()["delivery_ms"] == []
    begun = coast.clock.ms
    for wait in (1, 2, 3, 10):
        await send(coast.nodes[EE], FI)
        await coast.nodes[EE].work()
        coast.clock.forward(wait)
        await settle([*coast.nodes.values()])
    await note(
        office,
        (AuditKind.REFUSED, "FI", [], f"{Reason.EXPIRED.value}: expired 400 s ago"),
        (
            AuditKind.REFUSED,
            "FI",
            [],
            f"9 more documents refused within a minute: 7 {Reason.EXPIRED.value}, 1 {Reason.REPLAYED.value}",
        ),
    )
    coast.clock.forward(600)
    found = (await office.get("/v1/audit/statistics", "auditor")).json()
    assert found["alerts"] == {
        "severity": {"Severe": 4},
        "status": {"Actual": 4},
        "nation": {"EE": 4},
    }
    assert found["entries"]["sent"] == 4
    (to_fi,) = found["delivery_ms"]
    assert (to_fi["nation"], to_fi["count"]) == ("FI", 4)
    assert to_fi["p50"] == 2000
    assert to_fi["p90"] == to_fi["p99"] == 10_000
    assert found["acknowledgement_ms"] == []
    assert found["deliveries"] == [
        {"nation": "FI", "states": {"delivered": 4}, "overdue": 4, "through_others": 0}
    ]
    assert {(each["reason"], each["count"]) for each in found["refusals"]} == {
        (Reason.EXPIRED.value, 8),
        (Reason.REPLAYED.value, 1),
        (OTHER, 1),
    }
    from_now = {"from": "2030-01-01T00:00:00Z"}
    later = (await office.get("/v1/audit/statistics", "auditor", params=from_now)).json()
    assert later["entries"] == {}
    assert later["alerts"]["nation"] == {}
    assert begun < coast.clock.ms


@given(st.text(max_size=80))
def test_the_reason_of_a_refusal_is_one_that_is_known(detail: str) -> None:
    known = {each.value for each in Reason} | {OTHER}
    assert {reason for reason, _ in reasons_in(detail)} <= known


@pytest.mark.parametrize(
    ("kind", "actor", "subjects", "detail", "expected"),
    [
        (AuditKind.SENT, "operator.ee", [], "FI,LV", ("FI", "LV")),
        (AuditKind.RECEIVED, "EE", [], "EE to FI,LV via LT", ("EE", "FI", "LV", "LT")),
        (AuditKind.ACKNOWLEDGED, "FI/officer", [], "actioning", ("FI",)),
        (AuditKind.SUSPENDED, "admin", [("nation", "LV")], "FI said so", ("LV",)),
        (AuditKind.RECEIPTED, "NATO", [], "delivered, 1 of 1 known", ("NATO",)),
        (AuditKind.LINK_CHANGED, "node", [], "UA is silent", ("UA",)),
    ],
)
def test_the_nations_of_an_entry_are_named(
    kind: AuditKind,
    actor: str,
    subjects: list[tuple[str, str]],
    detail: str,
    expected: tuple[str, ...],
) -> None:
    assert nations_of(kind, actor, subjects, detail) == expected


GUARDED_TABLES = (
    "audit_leaves_table",
    "audit_nodes_table",
    "audit_subjects_table",
    "checkpoints_table",
    "cosignatures_table",
    "log_conflicts_table",
)


async def leaves(office: Office) -> list[tuple[int, str]]:
    def read(connection: Any) -> list[tuple[int, str]]:
        table = audit_leaves_table.c
        return [
            (index, leaf)
            for index, leaf in connection.execute(
                select(table.index, table.leaf).order_by(table.index)
            )
        ]

    return await office.node.desk.ledger.read(read)


@pytest.mark.asyncio
async def test_no_route_changes_or_deletes_an_entry_for_anybody(
    sqlite_office: Office,
) -> None:
    office = sqlite_office
    statements: list[str] = []
    bodies: dict[str, Any] = {"reason": "Order 17", "note": "x", "response": "declined"}
    alert_id = await send_as(office)
    for role in Role:
        await office.token(role)
    before = await leaves(office)
    writer = office.node.desk.ledger._writer
    sqlalchemy_event.listen(writer, "before_cursor_execute", lambda *of: statements.append(of[2]))
    values = {
        "alert_id": alert_id,
        "sensor_id": "fence",
        "username": "officer.ee",
        "digest": "A" * 43,
        "nation": "LV",
        "name": "nothing",
        "tile": "0/000",
        "index": "0",
    }
    for (method, template), allowed in ACCESS.items():
        path = re.sub(r"\{(\w+)(:path)?\}", lambda each: values.get(each[1], "0"), template)
        if template == "/v1/events":
            path += "?wait=false"
        for role in Role if allowed != PUBLIC else [None]:
            for way in {method, "DELETE", "PUT", "PATCH"}:
                await office.call(way, path, role, json=bodies if way != "GET" else None)
    after = await leaves(office)
    assert after[: len(before)] == before
    assert [index for index, _ in after] == [*range(len(after))]
    assert statements
    guarded = re.compile(
        rf"^\s*(UPDATE|DELETE FROM|REPLACE INTO|INSERT OR \w+ INTO|DROP\W+TABLE|ALTER\W+TABLE)\W+({'|'.join(GUARDED)})",
        re.IGNORECASE,
    )
    assert not [each for each in statements if guarded.match(each)]


def test_no_command_reaches_the_log_but_through_the_api_or_in_a_file() -> None:
    modules = [each.name for each in pkgutil.iter_modules(varde_gateway.cli.__path__)]
    assert "review" in modules
    touching: list[str] = []
    for name in modules:
        source = inspect.getsource(importlib.import_module(f"varde_gateway.cli.{name}"))
        if re.search("|".join((*GUARDED_TABLES, *GUARDED)), source):
            touching.append(name)
    # Doctor counts what the witnesses outside the federation have cosigned.
    assert touching == ["database_checks"]


def test_no_source_of_the_node_updates_or_deletes_entries() -> None:
    package = Path(varde_gateway.cli.__path__[0]).parent
    wanted = re.compile(rf"(?:update|delete)\(\s*(?:{'|'.join(GUARDED_TABLES)})")
    found = [
        str(each.relative_to(package))
        for each in package.rglob("*.py")
        if wanted.search(each.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_leaf SET actor = 'me' WHERE \"index\" = 0",
        'DELETE FROM audit_leaf WHERE "index" = 0',
        "UPDATE audit_node SET level = 9",
        "DELETE FROM audit_node",
        "UPDATE log_conflict SET detail = ''",
        "DELETE FROM log_conflict",
        "UPDATE audit_subject SET value = 'another'",
        'DELETE FROM audit_subject WHERE "index" = 0',
        "UPDATE audit_checkpoint SET note = ''",
        "DELETE FROM audit_checkpoint",
        "UPDATE cosignature SET line = ''",
        "DELETE FROM cosignature",
    ],
)
async def test_the_database_itself_refuses_to_change_the_log(
    office: Office, statement: str
) -> None:
    await furnish_guarded(office)
    ledger = office.node.desk.ledger
    before = await everything_guarded(office)
    assert all(before.values())
    with pytest.raises(DBAPIError, match="can only be added to"):
        await ledger.write(lambda tx: tx.connection.execute(text(statement)) and None)
    assert await everything_guarded(office) == before


async def furnish_guarded(office: Office) -> None:
    """A row at least in every guarded table."""
    await note(office, *[(AuditKind.SENT, "op", [("document", "d")], "") for _ in range(8)])
    await checkpoint(office.node.desk)
    await keep_cosignature(office.node.desk, Cosignature(1, "a witness", "line", 1))
    fork = (
        "INSERT INTO log_conflict (digest, origin, first_note, second_note, detail, at) "
        "VALUES ('d', 'o', '1', '2', 'x', 1)"
    )
    await office.node.desk.ledger.write(lambda tx: tx.connection.execute(text(fork)) and None)


async def everything_guarded(office: Office) -> dict[str, list[Any]]:
    def read(connection: Any) -> dict[str, list[Any]]:
        return {
            table: sorted(map(repr, connection.execute(text(f"SELECT * FROM {table}"))))
            for table in GUARDED
        }

    return await office.node.desk.ledger.read(read)


@pytest.mark.asyncio
@pytest.mark.parametrize("table", GUARDED)
async def test_no_row_of_the_log_is_replaced_by_one_of_the_same_key(
    sqlite_office: Office, table: str
) -> None:
    """SQLite's REPLACE deletes what is in its way, and no trigger on DELETE hears of it."""
    office = sqlite_office
    await furnish_guarded(office)
    before = await everything_guarded(office)
    again = f"REPLACE INTO {table} SELECT * FROM {table}"
    with pytest.raises(DBAPIError, match="can only be added to"):
        await office.node.desk.ledger.write(lambda tx: tx.connection.execute(text(again)) and None)
    assert await everything_guarded(office) == before


@pytest.mark.asyncio
@pytest.mark.postgres
async def test_postgresql_refuses_to_empty_a_table_of_the_log_at_once(
    postgres: PostgresCluster,
) -> None:
    async with running_office(postgres.new_database()) as office:
        await furnish_guarded(office)
        before = await everything_guarded(office)
        for table in GUARDED:
            with pytest.raises(DBAPIError, match="can only be added to"):
                await office.node.desk.ledger.write(
                    lambda tx, table=table: (
                        tx.connection.execute(text(f"TRUNCATE {table}")) and None
                    )  # type: ignore[misc] # the default binds the loop's table
                )
        assert await everything_guarded(office) == before


@pytest.mark.asyncio
async def test_attack_47_who_takes_the_triggers_away_is_found_by_the_verification(
    sqlite_office: Office, tmp_path: Path
) -> None:
    office = sqlite_office
    await note(office, *[(AuditKind.SENT, "op", [], "") for _ in range(8)])
    lines = [each async for each in export_lines(office.node.desk, "auditor")]
    *_, verdict = verify_export("".join(lines).splitlines())
    assert isinstance(verdict, Verdict)
    assert verdict.intact
    tamper(tmp_path / "node.db", 'DELETE FROM audit_leaf WHERE "index" = 5')
    lines = [each async for each in export_lines(office.node.desk, "auditor")]
    *_, verdict = verify_export("".join(lines).splitlines())
    assert isinstance(verdict, Verdict)
    assert (Fault.DELETED, 5, 5) in [(x.fault, x.first, x.last) for x in verdict.findings]
