"""Retention: content goes under law, the tree stays; old content goes by policy; an archive holds what was there."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text

from support.alerts import sample_alert
from support.desks import Office, open_office
from support.federation import EE, FI, federation
from support.nodes import Clock, Node, running_nodes, settle
from varde.encoding import encode_base64url, sha256_base64url
from varde.evidence import Verdict, verify_export
from varde_gateway.flow.log.trail import check_stored_log, checkpoint
from varde_gateway.flow.notify import EventFeed
from varde_gateway.flow.people.users import NewUser, Role, create_users
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.flow.review.retention import erase_expired
from varde_gateway.store.tables import (
    alert_attachments_table,
    attachments_table,
    documents_table,
    erasures_table,
)

pytestmark = pytest.mark.asyncio
SECRET = "Umbes 200 inimest"
NOTE = "Patrol of three, by the old mill"
DAY = 24 * 3600


class Pair:
    """EE and FI with the API of each; LV beside them."""

    def __init__(self, sender: Office, recipient: Office, nodes: list[Node]) -> None:
        self.sender = sender
        self.recipient = recipient
        self.nodes = nodes

    async def send(self, **options: Any) -> str:
        order = {"to": ["FI"], "tlp": "AMBER", "alert": sample_alert(**options)}
        answer = await self.sender.post("/v1/alerts", "operator", json=order)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def answered(self) -> str:
        """An alert that was sent, delivered and answered with a note."""
        alert_id = await self.send()
        await settle(self.nodes)
        answer = await self.recipient.post(
            f"/v1/alerts/{alert_id}/acknowledgements",
            "officer",
            json={"response": "actioning", "note": NOTE},
            headers={"Idempotency-Key": "one"},
        )
        assert answer.status_code == 201, answer.text
        await settle(self.nodes)
        return alert_id


@pytest_asyncio.fixture
async def pair(new_database: Callable[[], str]) -> AsyncIterator[Pair]:
    clock = Clock()
    urls = {nation: new_database() for nation in federation().parties}
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(running_nodes(urls, federation(), clock))
        yield Pair(
            await stack.enter_async_context(open_office(nodes[EE], clock)),
            await stack.enter_async_context(open_office(nodes[FI], clock)),
            [*nodes.values()],
        )


async def erase(office: Office, alert_id: str, role: str = "admin", **options: Any) -> Any:
    body = {"reason": "Order 17/2026"}
    return await office.post(f"/v1/alerts/{alert_id}/erase", role, json=body, **options)


async def everything(office: Office) -> str:
    """Every row of every table, as text: what somebody with the database would read."""

    def read(connection: Any) -> str:
        names = (
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            if connection.dialect.name == "sqlite"
            else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        tables = [*connection.scalars(text(names))]
        rows = [
            str(
                [
                    bytes(each).decode("utf-8", "replace")
                    if isinstance(each, bytes | memoryview)
                    else each
                    for each in row
                ]
            )
            for table in tables
            for row in connection.execute(text(f'SELECT * FROM "{table}"'))
        ]
        return "\n".join(rows)

    return await office.node.desk.ledger.read(read)


async def verdict(office: Office) -> Verdict:
    text = "".join([each async for each in export_lines(office.node.desk, "auditor")])
    *_, last = verify_export(text.splitlines())
    assert isinstance(last, Verdict)
    return last


async def test_what_is_erased_is_nowhere_in_the_database_and_the_log_still_verifies(
    pair: Pair,
) -> None:
    alert_id = await pair.answered()
    for office in (pair.sender, pair.recipient):
        await checkpoint(office.node.desk)
        digest = await office.node.desk.ledger.read(
            lambda c: c.scalar(
                select(documents_table.c.digest).where(documents_table.c.id == alert_id)
            )
        )
        found = await everything(office)
        # The signed document is base64url: its words are looked for where they stand in the clear.
        assert SECRET in found
        assert NOTE in found
        assert await documents_with(office, NOTE)
        answer = await erase(office, alert_id)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "erased"
        assert answer.json()["asked_by"] == "admin.ee"
        found = await everything(office)
        assert SECRET not in found
        assert NOTE not in found
        assert not await documents_with(office, NOTE)
        assert not await documents_with(office, SECRET)
        shown = (await office.get(f"/v1/alerts/{alert_id}", "operator")).json()
        assert (shown["state"], shown["alert"]) == ("erased", None)
        assert [each["note"] for each in shown["acknowledgements"]] == [""]
        erased = (await office.audit("erased"))[-1]
        assert erased["detail"] == "Order 17/2026"
        assert {"label": "digest", "value": digest} in erased["subjects"]
        assert (await verdict(office)).intact
        await check_stored_log(office.node.desk)
        again = await erase(office, alert_id)
        assert again.status_code == 409


async def documents_with(office: Office, words: str) -> list[str]:
    """The ids of signed documents that say these words."""

    def read(connection: Any) -> list[str]:
        found = []
        for row in connection.execute(select(documents_table.c.id, documents_table.c.raw)):
            payload = json.loads(row.raw)["payload"] if row.raw else ""
            # Whatever stands at a multiple of three bytes encodes alike: three shifts find it anywhere.
            shifts = (encode_base64url(b"x" * n + words.encode())[4:-4] for n in range(3))
            if any(each in payload for each in shifts):
                found.append(row.id)
        return found

    return await office.node.desk.ledger.read(read)


async def test_an_alert_that_is_still_on_its_way_is_not_erased(pair: Pair) -> None:
    alert_id = await pair.send()
    refused = await erase(pair.sender, alert_id)
    assert refused.status_code == 409
    assert "on its way to FI" in refused.json()["detail"]
    assert (await pair.sender.get(f"/v1/alerts/{alert_id}", "operator")).json()["alert"]
    await settle(pair.nodes)
    await pair.recipient.post(
        f"/v1/alerts/{alert_id}/acknowledgements", "officer", json={"response": "declined"}
    )
    assert (await erase(pair.recipient, alert_id)).status_code == 409
    await settle(pair.nodes)
    assert (await erase(pair.recipient, alert_id)).status_code == 200


async def test_what_was_erased_is_not_answered_updated_shown_or_sent_again(pair: Pair) -> None:
    alert_id = await pair.answered()
    assert (await erase(pair.sender, alert_id)).status_code == 200
    assert (await erase(pair.recipient, alert_id)).status_code == 200
    cap = await pair.sender.get(
        f"/v1/alerts/{alert_id}", "operator", headers={"Accept": "application/cap+xml"}
    )
    assert cap.status_code == 404
    change = {"alert": {"note": "More."}}
    update = await pair.sender.post(f"/v1/alerts/{alert_id}/update", "operator", json=change)
    assert update.status_code == 409
    late = await pair.recipient.post(
        f"/v1/alerts/{alert_id}/acknowledgements", "officer", json={"response": "declined"}
    )
    assert late.status_code == 409
    repeated = await pair.recipient.post(
        f"/v1/alerts/{alert_id}/acknowledgements",
        "officer",
        json={"response": "actioning", "note": NOTE},
        headers={"Idempotency-Key": "one"},
    )
    assert NOTE not in repeated.text
    listed = await pair.sender.get("/v1/alerts", "operator", params={"state": "erased"})
    assert [each["id"] for each in listed.json()["items"]] == [alert_id]
    trail = await pair.sender.get(f"/v1/alerts/{alert_id}/trail", "auditor")
    assert trail.json()["alert"]["state"] == "erased"
    assert "erased" in [each["step"] for each in trail.json()["timeline"]]
    unknown = await erase(pair.sender, "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b")
    assert unknown.status_code == 404


async def test_a_peer_that_lost_it_is_told_that_it_will_never_come(pair: Pair) -> None:
    alert_id = await pair.answered()
    await erase(pair.sender, alert_id)
    row = await pair.sender.node.desk.ledger.read(
        lambda c: c.execute(
            select(documents_table.c.expires_at, documents_table.c.digest).where(
                documents_table.c.id == alert_id
            )
        ).one()
    )
    assert row.expires_at * 1000 <= pair.sender.clock.ms
    assert row.digest


async def test_the_event_stream_forgets_what_was_erased_in_memory_and_in_the_table(
    pair: Pair,
) -> None:
    office = pair.recipient
    feed: EventFeed = office.api.state.parts.feed
    before = await feed.newest_id()
    alert_id = await pair.answered()
    # What followed ``before`` is in memory; from the beginning on only the table has it.
    paths = [f"/v1/events?after={after}&wait=false" for after in (before, 0)]
    for path in paths:
        assert SECRET in (await office.get(path, "officer")).text
    await erase(office, alert_id)
    for path in paths:
        stream = (await office.get(path, "officer")).text
        assert alert_id in stream
        assert SECRET not in stream
        assert NOTE not in stream
        assert "event: erased" in stream


async def test_an_answer_that_comes_after_the_erasure_is_erased_as_well(pair: Pair) -> None:
    alert_id = await pair.send()
    await settle(pair.nodes)
    await erase(pair.sender, alert_id)
    await pair.recipient.post(
        f"/v1/alerts/{alert_id}/acknowledgements",
        "officer",
        json={"response": "actioning", "note": NOTE},
    )
    await settle(pair.nodes)
    assert NOTE in await everything(pair.sender)
    await erase_expired(pair.sender.node.desk)
    assert not await documents_with(pair.sender, NOTE)
    shown = (await pair.sender.get(f"/v1/alerts/{alert_id}", "operator")).json()
    assert [each["note"] for each in shown["acknowledgements"]] == [""]
    assert (await verdict(pair.sender)).intact


async def test_two_administrators_erase_where_the_nation_wants_two(pair: Pair) -> None:
    office = pair.sender
    office.node.desk.policy = replace(office.node.desk.policy, erase_by_two=True)
    second = NewUser("admin.two", "Second", "a password for tests", (Role.ADMIN,))
    await create_users(office.node.desk, [second], actor="tests")
    token = (await office.sign_in("admin.two")).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    alert_id = await pair.answered()
    asked = await erase(office, alert_id)
    assert asked.json()["state"] == "waiting"
    assert SECRET in await everything(office)
    assert (await erase(office, alert_id)).status_code == 409
    body = {"reason": "Confirmed"}
    done = await office.post(f"/v1/alerts/{alert_id}/erase", headers=headers, json=body)
    assert done.json()["state"] == "erased"
    assert (done.json()["asked_by"], done.json()["confirmed_by"]) == ("admin.ee", "admin.two")
    assert done.json()["reason"] == "Order 17/2026"
    assert SECRET not in await everything(office)


async def erasures(office: Office) -> list[Any]:
    return await office.node.desk.ledger.read(lambda c: [*c.execute(select(erasures_table))])


async def test_the_policy_erases_what_waits_for_a_second_administrator_and_all_the_rest(
    pair: Pair,
) -> None:
    office = pair.sender
    desk = office.node.desk
    desk.policy = replace(desk.policy, erase_by_two=True, retention_days=30)
    waiting, other = await pair.answered(), await pair.answered()
    assert (await erase(office, waiting)).json()["state"] == "waiting"
    office.clock.forward(40 * DAY)
    assert await erase_expired(desk) == 2
    assert await erase_expired(desk) == 0
    assert SECRET not in await everything(office)
    kept = {row.alert_id: row for row in await erasures(office)}
    first, second = kept[waiting], kept[other]
    assert (first.asked_by, first.reason, first.confirmed_by) == (
        "admin.ee",
        "Order 17/2026",
        "node",
    )
    assert (second.asked_by, second.confirmed_by) == ("node", None)
    assert first.erased_at == second.erased_at == office.clock.ms
    said = {each["detail"] for each in await office.audit("erased") if each["actor"] == "node"}
    assert said == {"older than 30 days"}


async def test_one_administrator_erases_what_another_has_asked_for_where_two_are_wanted_no_more(
    pair: Pair,
) -> None:
    office = pair.sender
    desk = office.node.desk
    desk.policy = replace(desk.policy, erase_by_two=True)
    second = NewUser("admin.two", "Second", "a password for tests", (Role.ADMIN,))
    await create_users(desk, [second], actor="tests")
    token = (await office.sign_in("admin.two")).json()["access_token"]
    alert_id = await pair.answered()
    assert (await erase(office, alert_id)).json()["state"] == "waiting"
    desk.policy = replace(desk.policy, erase_by_two=False)
    body = {"reason": "Confirmed"}
    headers = {"Authorization": f"Bearer {token}"}
    done = await office.post(f"/v1/alerts/{alert_id}/erase", headers=headers, json=body)
    assert (done.json()["asked_by"], done.json()["confirmed_by"]) == ("admin.ee", "admin.two")
    (row,) = await erasures(office)
    assert (row.asked_by, row.confirmed_by, row.erased_at) == (
        "admin.ee",
        "admin.two",
        office.clock.ms,
    )


async def test_the_key_of_an_attachment_goes_with_the_last_alert_that_names_it(pair: Pair) -> None:
    office = pair.sender
    first, second = await pair.answered(), await pair.answered()

    def attach(tx: Any) -> None:
        for number, named in enumerate([[first], [first, second]]):
            tx.connection.execute(
                insert(attachments_table),
                {
                    "id": f"attachment-{number}",
                    "reference": f"r{number}",
                    "name": f"secret-plan-{number}.pdf",
                    "media_type": "application/pdf",
                    "size": 1,
                    "digest": "d",
                    "blob": "b",
                    "key": b"the key",
                    "state": "whole",
                    "next_try_at": 0,
                    "created_at": 0,
                },
            )
            for alert_id in named:
                row = {
                    "sender": EE,
                    "alert_id": alert_id,
                    "position": number,
                    "attachment_id": f"attachment-{number}",
                }
                tx.connection.execute(insert(alert_attachments_table), row)

    await office.node.desk.ledger.write(attach)
    await erase(office, first)
    found = await everything(office)
    assert "secret-plan-0" not in found
    assert "secret-plan-1" in found
    await erase(office, second)
    assert "secret-plan-1" not in await everything(office)


async def test_content_older_than_the_policy_is_erased_in_batches_and_logged(pair: Pair) -> None:
    office = pair.sender
    old = [await pair.send() for _ in range(3)]
    await settle(pair.nodes)
    office.clock.forward(40 * DAY)
    desk = office.node.desk
    assert await erase_expired(desk) == 0
    desk.policy = replace(desk.policy, retention_days=60)
    assert await erase_expired(desk) == 0
    desk.policy = replace(desk.policy, retention_days=30)
    assert await erase_expired(desk) == 3
    assert await erase_expired(desk) == 0
    entries = await office.audit("erased")
    assert [each["actor"] for each in entries] == ["node"] * 3
    assert {each["detail"] for each in entries} == {"older than 30 days"}
    assert {each["subjects"][0]["value"] for each in entries} == {*old}
    assert SECRET not in await everything(office)
    assert (await verdict(office)).intact


async def test_the_policy_waits_for_the_archive_where_the_nation_wants_one(pair: Pair) -> None:
    office = pair.sender
    await pair.send()
    await settle(pair.nodes)
    await checkpoint(office.node.desk)
    office.clock.forward(40 * DAY)
    desk = office.node.desk
    desk.policy = replace(desk.policy, retention_days=30, retention_needs_archive=True)
    assert await erase_expired(desk) == 0
    office.tokens.clear()
    taken = await office.get("/v1/audit/archive?until=2100-01-01T00:00:00Z", "auditor")
    assert taken.status_code == 200
    assert await erase_expired(desk) == 1


async def test_an_archive_verifies_holds_the_documents_and_its_digest_is_logged(
    pair: Pair,
) -> None:
    office = pair.sender
    alert_id = await pair.answered()
    erased = await pair.answered()
    await erase(office, erased)
    await checkpoint(office.node.desk)
    nothing = await office.get("/v1/audit/archive?until=2000-01-01T00:00:00Z", "auditor")
    assert nothing.status_code == 404
    answer = await office.get("/v1/audit/archive?until=2100-01-01T00:00:00Z", "auditor")
    lines = answer.text.splitlines(keepends=True)
    end = next(n for n, line in enumerate(lines) if line.startswith('{"end":')) + 1
    log, documents = lines[:end], [json.loads(line) for line in lines[end:]]
    *_, last = verify_export(log)
    assert isinstance(last, Verdict)
    assert last.intact
    assert last.signed_entries == last.entries
    ids = [each["document"] for each in documents]
    assert alert_id in ids
    assert erased not in ids
    assert len(ids) == len(set(ids))
    for each in documents:
        assert sha256_base64url(each["raw"].encode()) == each["digest"]
    (archived,) = await office.audit("archived")
    assert archived["subjects"] == [
        {"label": "log", "value": sha256_base64url("".join(log).encode())},
        {"label": "documents", "value": sha256_base64url("".join(lines[end:]).encode())},
    ]
    assert re.match(rf"{last.entries} entries, and the documents until ", archived["detail"])


async def test_only_an_administrator_erases(sqlite_office: Office) -> None:
    for role in (Role.OPERATOR, Role.OFFICER, Role.APPROVER, Role.AUDITOR):
        answer = await erase(sqlite_office, "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b", role)
        assert answer.status_code == 403
