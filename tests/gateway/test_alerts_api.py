"""Alerts over HTTP: sent, listed, read, answered, updated, cancelled; as JSON and as CAP XML."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from support.alerts import sample_alert
from support.desks import Office, open_office
from support.federation import EE, FI, federation
from support.nodes import Clock, running_nodes, settle
from varde.alert import parse_alert
from varde_gateway.cap import format_cap_xml, parse_cap_xml

pytestmark = pytest.mark.asyncio
XML = {"Content-Type": "application/cap+xml"}
ABSENT = "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b"


def order(*to: str, **overrides: Any) -> dict[str, Any]:
    return {"to": list(to or ("FI", "LV")), "tlp": "AMBER", "alert": sample_alert(**overrides)}


class Pair:
    """EE and FI, joined by the test."""

    def __init__(self, sender: Office, recipient: Office) -> None:
        self.sender = sender
        self.recipient = recipient

    async def carry(self) -> None:
        await settle([self.sender.node, self.recipient.node])


@pytest_asyncio.fixture
async def pair(new_database: Callable[[], str]) -> AsyncIterator[Pair]:
    clock = Clock()
    urls = {nation: new_database() for nation in federation().parties}
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(running_nodes(urls, federation(), clock))
        yield Pair(
            await stack.enter_async_context(open_office(nodes[EE], clock)),
            await stack.enter_async_context(open_office(nodes[FI], clock)),
        )


async def test_an_accepted_alert_is_answered_202_with_its_deliveries_and_can_be_read(
    office: Office,
) -> None:
    answer = await office.post("/v1/alerts", "operator", json=order("LV", "FI"))
    assert answer.status_code == 202
    body = answer.json()
    assert body["state"] == "sent"
    assert body["deliveries"] == [
        {"to": "FI", "state": "queued"},
        {"to": "LV", "state": "queued"},
    ]
    assert body["identifier"] == sample_alert()["identifier"]
    assert answer.headers["location"] == f"/v1/alerts/{body['id']}"
    read = (await office.get(answer.headers["location"], "auditor")).json()
    assert read["id"] == body["id"]
    assert (read["direction"], read["from"], read["to"]) == ("out", "EE", ["FI", "LV"])
    assert read["alert"] == sample_alert()
    assert read["author"] == "operator.ee"
    delivery = read["deliveries"][0]
    assert delivery["to"] == "FI"
    assert delivery["queued_at"] == "2026-05-28T20:26:40.000Z"
    assert delivery["delivered_at"] is None
    assert delivery["overdue"] is False
    assert read["acknowledgements"] == []


@pytest.mark.parametrize("to", ["*", ["*"]])
async def test_a_star_is_every_other_member(office: Office, to: object) -> None:
    answer = await office.post("/v1/alerts", "operator", json=order() | {"to": to})
    assert [each["to"] for each in answer.json()["deliveries"]] == ["FI", "LV"]


async def test_what_an_alert_does_not_say_has_defaults(office: Office) -> None:
    alert = sample_alert()
    for name in ("identifier", "sender", "sent", "msgType", "scope", "restriction"):
        del alert[name]
    answer = await office.post("/v1/alerts", "operator", json={"to": ["FI"], "alert": alert})
    body = answer.json()
    assert body["identifier"] == body["id"]
    read = (await office.get(f"/v1/alerts/{body['id']}", "operator")).json()
    assert read["tlp"] == "AMBER"
    assert read["alert"]["sender"] == "varde.ee"
    assert read["alert"]["sent"] == "2026-05-28T20:26:40-00:00"
    assert read["alert"]["restriction"] == "TLP:AMBER"


async def test_numbers_pairs_and_single_values_are_taken_as_people_write_them(
    office: Office,
) -> None:
    alert = sample_alert()
    area = alert["info"][0]["area"][0]
    area["polygon"] = [
        [59.3702, 28.1893],
        [59.3755, 28.1921],
        [59.3801, 28.201],
        [59.3702, 28.1893],
    ]
    area["altitude"] = 12.5
    alert["info"][0]["category"] = "Security"
    answer = await office.post("/v1/alerts", "operator", json={"to": ["FI"], "alert": alert})
    assert answer.status_code == 202, answer.text
    read = (await office.get(answer.headers["location"], "operator")).json()
    stored = read["alert"]["info"][0]
    assert stored["area"][0]["polygon"] == [
        "59.3702,28.1893 59.3755,28.1921 59.3801,28.201 59.3702,28.1893"
    ]
    assert stored["area"][0]["altitude"] == "12.5"
    assert stored["category"] == ["Security"]


async def test_cap_xml_goes_in_and_comes_out_equivalent(office: Office) -> None:
    raw = format_cap_xml(parse_alert(sample_alert()))
    answer = await office.post(
        "/v1/alerts?to=FI,LV&tlp=GREEN", "operator", content=raw, headers=XML
    )
    assert answer.status_code == 202, answer.text
    read = await office.get(
        answer.headers["location"], "operator", headers={"Accept": "application/cap+xml"}
    )
    assert read.headers["content-type"] == "application/cap+xml"
    assert parse_cap_xml(read.content) == parse_alert(sample_alert())
    as_json = (await office.get(answer.headers["location"], "operator")).json()
    assert as_json["tlp"] == "GREEN"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*;q=0.5, application/cap+xml", "application/cap+xml"),
        ("application/json;q=0.2, application/cap+xml;q=0.3", "application/cap+xml"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "application/json"),
        ("application/cap+xml;q=0, */*", "application/json"),
    ],
)
async def test_the_preferred_form_of_an_alert_is_given(
    sqlite_office: Office, accept: str, media_type: str
) -> None:
    sent = await sqlite_office.post("/v1/alerts", "operator", json=order())
    path = sent.headers["location"]
    read = await sqlite_office.get(path, "operator", headers={"Accept": accept})
    assert read.headers["content-type"] == media_type


async def test_a_form_that_does_not_exist_is_not_acceptable(sqlite_office: Office) -> None:
    sent = await sqlite_office.post("/v1/alerts", "operator", json=order())
    path = sent.headers["location"]
    read = await sqlite_office.get(path, "operator", headers={"Accept": "text/html"})
    assert read.status_code == 406


async def test_a_key_used_again_with_the_same_request_gets_the_same_answer_and_sends_once(
    office: Office,
) -> None:
    key = {"Idempotency-Key": "order-17"}
    first = await office.post("/v1/alerts", "operator", json=order(), headers=key)
    again = await office.post("/v1/alerts", "operator", json=order(), headers=key)
    assert again.status_code == 202
    assert again.json() == first.json()
    other = await office.post("/v1/alerts", "operator", json=order("FI"), headers=key)
    assert other.status_code == 409
    raw = format_cap_xml(parse_alert(sample_alert()))
    as_xml = await office.post(
        "/v1/alerts?to=FI,LV", "operator", content=raw, headers={**XML, **key}
    )
    assert as_xml.status_code == 409
    assert len((await office.get("/v1/alerts", "operator")).json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "a\tb"])
async def test_a_key_of_another_form_is_refused(sqlite_office: Office, key: str) -> None:
    answer = await sqlite_office.post(
        "/v1/alerts", "operator", json=order(), headers={"Idempotency-Key": key}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "Idempotency-Key"


async def test_alerts_are_listed_newest_first_in_pages(office: Office) -> None:
    for number in range(5):
        sent = await office.post("/v1/alerts", "operator", json=order(note=f"number {number}"))
        assert sent.status_code == 202
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        more = "" if cursor is None else f"&cursor={cursor}"
        page = (await office.get(f"/v1/alerts?limit=2{more}", "operator")).json()
        seen += [each["alert"]["note"] for each in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert pages == 3
    assert seen == [f"number {number}" for number in (4, 3, 2, 1, 0)]
    received = await office.get("/v1/alerts?direction=in", "operator")
    assert received.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=%%", "cursor=YQ", "cursor=!", "state=lost"]
)
async def test_a_page_of_another_shape_is_refused(sqlite_office: Office, query: str) -> None:
    answer = await sqlite_office.get(f"/v1/alerts?{query}", "operator")
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_an_officer_reads_and_answers_and_the_sender_sees_both(pair: Pair) -> None:
    sent = await pair.sender.post("/v1/alerts", "operator", json=order("FI"))
    path = sent.headers["location"]
    await pair.carry()
    auditors = (await pair.recipient.get(path, "auditor")).json()
    assert auditors["displayed_at"] is None
    shown = (await pair.recipient.get(path, "officer")).json()
    assert shown["displayed_at"] is not None
    assert shown["direction"] == "in"
    await pair.carry()
    (delivery,) = (await pair.sender.get(path, "operator")).json()["deliveries"]
    assert delivery["state"] == "displayed"
    answered = await pair.recipient.post(
        f"{path}/acknowledgements",
        "officer",
        json={"response": "actioning", "note": "Patrol sent."},
    )
    assert answered.status_code == 201
    assert answered.json()["officer"] == "officer.ee"
    await pair.carry()
    read = (await pair.sender.get(path, "operator")).json()
    (acknowledgement,) = read["acknowledgements"]
    assert (acknowledgement["nation"], acknowledgement["response"]) == ("FI", "actioning")
    assert read["deliveries"][0]["state"] == "acknowledged"


async def test_an_acknowledgement_with_a_key_is_recorded_once(pair: Pair) -> None:
    sent = await pair.sender.post("/v1/alerts", "operator", json=order("FI"))
    path = sent.headers["location"]
    await pair.carry()
    answers = [
        await pair.recipient.post(
            f"{path}/acknowledgements",
            "officer",
            json={"response": "declined"},
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    read = (await pair.recipient.get(path, "officer")).json()
    assert len(read["acknowledgements"]) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"response": "maybe"}, {"response": "declined", "more": 1}, {"response": "declined", "note": 5},
     {"response": "declined", "note": "x" * 4001}],
)  # fmt: skip
async def test_an_acknowledgement_of_another_shape_is_refused(
    sqlite_office: Office, body: object
) -> None:
    answer = await sqlite_office.post(f"/v1/alerts/{ABSENT}/acknowledgements", "officer", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_an_alert_of_our_own_cannot_be_acknowledged_here(sqlite_office: Office) -> None:
    sent = await sqlite_office.post("/v1/alerts", "operator", json=order())
    answer = await sqlite_office.post(
        f"{sent.headers['location']}/acknowledgements", "officer", json={"response": "declined"}
    )
    assert answer.status_code == 409


async def test_an_update_and_then_a_cancel_go_to_the_same_nations(office: Office) -> None:
    sent = await office.post("/v1/alerts", "operator", json=order("FI"))
    updated = await office.post(
        f"{sent.headers['location']}/update",
        "operator",
        json={"alert": {"note": "The crowd is larger."}},
    )
    assert updated.status_code == 202, updated.text
    former = (await office.get(sent.headers["location"], "operator")).json()
    assert former["state"] == "updated"
    again = await office.post(f"{sent.headers['location']}/cancel", "operator", json={})
    assert again.status_code == 409
    cancelled = await office.post(
        f"{updated.headers['location']}/cancel", "operator", json={"note": "It is over."}
    )
    assert cancelled.status_code == 202
    read = (await office.get(cancelled.headers["location"], "operator")).json()
    assert read["alert"]["msgType"] == "Cancel"
    assert read["alert"]["note"] == "It is over."
    assert read["to"] == ["FI"]


@pytest.mark.parametrize(
    ("method", "path", "role", "body"),
    [
        ("GET", "", "operator", None),
        ("POST", "/update", "operator", {"alert": {}}),
        ("POST", "/cancel", "operator", {}),
        ("POST", "/acknowledgements", "officer", {"response": "declined"}),
    ],
)
async def test_what_is_not_here_is_not_found(
    sqlite_office: Office, method: str, path: str, role: str, body: dict[str, Any] | None
) -> None:
    answer = await sqlite_office.call(method, f"/v1/alerts/{ABSENT}{path}", role, json=body)
    assert answer.status_code == 404, answer.text


async def test_the_audit_log_is_read_proved_and_exported(office: Office) -> None:
    sent = await office.post("/v1/alerts", "operator", json=order())
    alert_id = sent.json()["id"]
    page = (await office.get(f"/v1/audit/entries?subject={alert_id}&kind=sent", "auditor")).json()
    (entry,) = page["items"]
    assert entry["actor"] == "operator.ee"
    assert entry["at"].endswith("Z")
    at = entry["at"]
    before = await office.get(f"/v1/audit/entries?subject={alert_id}&until={at}", "auditor")
    after = await office.get(f"/v1/audit/entries?subject={alert_id}&from={at}", "auditor")
    assert (len(before.json()["items"]), len(after.json()["items"])) == (0, 1)
    first = (await office.get("/v1/audit/entries?limit=1", "auditor")).json()
    rest = await office.get(f"/v1/audit/entries?cursor={first['next_cursor']}", "auditor")
    assert rest.json()["items"][0]["index"] == first["items"][0]["index"] + 1
    proof = await office.get(f"/v1/audit/proof?index={entry['index']}", "auditor")
    assert proof.text.startswith("c2sp.org/tlog-proof@v1\n")
    assert proof.headers["content-type"].startswith("text/plain")
    checkpoint = (await office.get("/v1/audit/checkpoint", "auditor")).text
    assert checkpoint.splitlines()[0] == "varde.example/ee"
    consistent = await office.get("/v1/audit/consistency?from=1", "auditor")
    assert consistent.text.startswith("old 1\n")
    exported = await office.get("/v1/audit/export", "auditor")
    lines = [json.loads(each) for each in exported.text.splitlines()]
    assert lines[0]["varde"] == "audit-log"
    assert "end" in lines[-1]
    absent = await office.get("/v1/audit/proof?index=100000", "auditor")
    assert absent.status_code == 404


@pytest.mark.parametrize(
    "moment", ["2026-02-30T00:00:00Z", "yesterday", "2026-01-01", "2026-01-01T00:00:00+24:00"]
)
async def test_a_time_that_does_not_exist_is_refused(sqlite_office: Office, moment: str) -> None:
    answer = await sqlite_office.get("/v1/audit/entries", "auditor", params={"from": moment})
    assert answer.status_code == 422, answer.text


async def test_the_federation_and_its_roster_are_shown(sqlite_office: Office) -> None:
    shown = (await sqlite_office.get("/v1/federation", "operator")).json()
    assert [each["nation"] for each in shown["members"]] == ["EE", "FI", "LV"]
    roster = (await sqlite_office.get("/v1/federation/roster", "operator")).json()
    assert set(roster["rosters"][0]) == {"payload", "votes"}
    assert roster["suspended"] == []


async def test_the_node_is_ready_only_with_its_broker(sqlite_office: Office) -> None:
    assert (await sqlite_office.get("/health/live")).json() == {"status": "live", "nation": "EE"}
    assert (await sqlite_office.get("/health/ready")).status_code == 200
    sqlite_office.node.broker.down = True
    away = await sqlite_office.get("/health/ready")
    assert away.status_code == 503
    assert away.json()["checks"] == {"database": "ok", "broker": "not connected"}


async def test_metrics_count_requests_and_open_deliveries(sqlite_office: Office) -> None:
    await sqlite_office.post("/v1/alerts", "operator", json=order("FI"))
    text = (await sqlite_office.get("/metrics")).text
    assert 'varde_open_deliveries{nation="FI"} ' in text
    assert 'varde_request_seconds_count{route="/v1/alerts",status="202"} 1.0' in text
