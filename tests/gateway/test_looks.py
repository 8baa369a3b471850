"""No look of an auditor is without a trace: every route that they may read, as the API has it, writes an entry before it answers."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from support.alerts import sample_alert
from support.desks import Office
from varde.encoding import sha256_base64url
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.people.users import Role
from varde_gateway.web.access import ACCESS, PUBLIC, SELF_RECORDED

pytestmark = pytest.mark.asyncio
CONTENT = b"a plan"
LOOKS = ("reviewed", "exported")
QUERIES = {
    "/v1/events": "?wait=false",
    "/v1/audit/proof": "?index=1",
    "/v1/audit/consistency": "?from=1",
    "/v1/audit/archive": "?until=2100-01-01T00:00:00Z",
}


class Furnished:
    """An office where every route finds something; ``values`` are for the parts of paths."""

    def __init__(self, office: Office, values: dict[str, str]) -> None:
        self.office = office
        self.values = values

    def path_of(self, template: str) -> str:
        return template.format(**self.values) + QUERIES.get(template, "")

    async def looks(self) -> list[dict[str, Any]]:
        """The entries about looks, in their order."""
        found = [each for kind in LOOKS for each in await self.office.audit(kind)]
        return sorted(found, key=lambda each: int(each["index"]))


@pytest_asyncio.fixture
async def furnished(sqlite_office: Office) -> AsyncIterator[Furnished]:
    office = sqlite_office
    for role in Role:
        await office.token(role)
    uploaded = await office.post(
        "/v1/attachments", "operator", content=CONTENT, params={"name": "plan"}
    )
    assert uploaded.status_code == 201, uploaded.text
    attachment = uploaded.json()["id"]
    order = {"to": ["FI"], "alert": sample_alert(), "attachments": [attachment]}
    sent = await office.post("/v1/alerts", "operator", json=order)
    assert sent.status_code == 202, sent.text
    proposed = await office.post("/v1/federation/roster/proposals", "admin", json={"renew": True})
    assert proposed.status_code == 201, proposed.text
    await checkpoint(office.node.desk)
    yield Furnished(
        office,
        {
            "alert_id": sent.json()["id"],
            "attachment_id": attachment,
            "digest": proposed.json()["hash"],
            "sensor_id": "fence",
            "username": "officer.ee",
            "tile": "entries/000.p/2",
        },
    )


async def test_every_route_that_an_auditor_may_read_writes_one_entry_of_the_look(
    furnished: Furnished,
) -> None:
    office = furnished.office
    readable = [
        template
        for method, template in sorted(office.routes())
        if method == "GET"
        and (allowed := ACCESS[method, template]) != PUBLIC
        and Role.AUDITOR in allowed
    ]
    assert len(readable) > 20
    for template in readable:
        before = len(await furnished.looks())
        answer = await office.get(furnished.path_of(template), "auditor")
        assert answer.status_code == 200, (template, answer.text)
        written = (await furnished.looks())[before:]
        assert [each["actor"] for each in written] == ["auditor.ee"], template
        assert written[0]["detail"] or template == "/v1/audit/export", template


async def test_what_records_its_own_looks_are_routes_of_the_api(sqlite_office: Office) -> None:
    assert sqlite_office.routes() >= SELF_RECORDED


async def test_an_entry_says_what_was_read_and_names_its_parts(furnished: Furnished) -> None:
    office, values = furnished.office, furnished.values
    for path in (
        f"/v1/attachments/{values['attachment_id']}",
        "/v1/audit/proof?index=1",
        "/v1/log/tile/entries/000.p/2",
    ):
        assert (await office.get(path, "auditor")).status_code == 200
    attachment, proof, tile = await office.audit("reviewed")
    assert attachment["detail"] == f"read /v1/attachments/{values['attachment_id']}"
    assert attachment["subjects"] == [{"label": "attachment", "value": values["attachment_id"]}]
    assert proof["detail"] == "read /v1/audit/proof, index 1"
    assert proof["subjects"] == [{"label": "query", "value": sha256_base64url(b"index=1")}]
    assert tile["subjects"] == [{"label": "tile", "value": "entries/000.p/2"}]


async def test_no_word_of_a_parameter_is_written_down(furnished: Furnished) -> None:
    office = furnished.office
    answer = await office.get("/v1/users?limit=3&else=very%20secret", "auditor")
    assert answer.status_code == 200
    (look,) = await office.audit("reviewed")
    assert look["detail"] == "read /v1/users, limit 3"
    assert "secret" not in json.dumps(look)


async def test_the_same_look_within_a_minute_is_one_entry_and_another_one_is_not(
    furnished: Furnished,
) -> None:
    office = furnished.office
    for _ in range(5):
        await office.get("/v1/audit/witnesses", "auditor")
        office.clock.forward(11)
    assert len(await office.audit("reviewed")) == 1
    office.clock.forward(6)
    await office.get("/v1/audit/witnesses", "auditor")
    assert len(await office.audit("reviewed")) == 2
    await office.get("/v1/audit/proof?index=1", "auditor")
    await office.get("/v1/audit/proof?index=2", "auditor")
    assert len(await office.audit("reviewed")) == 4


async def test_whoever_is_no_auditor_and_what_is_not_shown_writes_nothing(
    furnished: Furnished,
) -> None:
    office = furnished.office
    for role in ("admin", "officer", "operator"):
        await office.get("/v1/federation", role)
    await office.get("/v1/users", "admin")
    assert (await office.get("/v1/users/nobody", "auditor")).status_code == 404
    assert (await office.get("/v1/audit/proof?index=x", "auditor")).status_code == 422
    assert (await office.get("/v1/audit/proof?index=1", "operator")).status_code == 403
    assert await office.audit("reviewed") == []


@pytest.mark.parametrize("path", ["/v1/users", "/v1/events?wait=false", "/v1/attachments/{}"])
async def test_a_look_that_cannot_be_recorded_shows_nothing(
    furnished: Furnished, path: str
) -> None:
    office = furnished.office
    full = (
        "CREATE TRIGGER full BEFORE INSERT ON audit_leaf WHEN NEW.kind = 'reviewed' "
        "BEGIN INSERT INTO nowhere VALUES (1); END"
    )
    await office.node.desk.ledger.write(lambda tx: tx.connection.execute(text(full)) and None)
    answer = await office.get(path.format(furnished.values["attachment_id"]), "auditor")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert CONTENT not in answer.content


async def test_an_archive_that_is_broken_off_has_left_an_entry(furnished: Furnished) -> None:
    office = furnished.office
    token = await office.token("auditor")
    taken = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal taken
        if message["type"] == "http.response.body":
            begun = [each["detail"] for each in await office.audit("reviewed")]
            assert any(each.startswith("archive begun, ") for each in begun)
            taken += 1
            raise OSError("the client has gone")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("node.example", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
        "path": "/v1/audit/archive",
        "raw_path": b"/v1/audit/archive",
        "query_string": b"until=2100-01-01T00:00:00Z",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }
    with pytest.raises(Exception):  # noqa: B017 -- the framework's word for it
        await office.api(scope, receive, send)
    assert taken == 1
    assert await office.audit("archived") == []
