"""Every route has an entry in the one table, and the table is what happens: role by role, route by route."""

import pytest

from support.desks import Office
from varde_gateway.flow.people.users import Role
from varde_gateway.web.access import ACCESS, PUBLIC

VALUES = {
    "alert_id": "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b",
    "attachment_id": "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b",
    "sensor_id": "nothing",
    "username": "nobody",
    "digest": "A" * 43,
    "nation": "XX",
    "name": "nothing",
    "tile": "0/000",
    "origin_digest": "0" * 64,
}


def path_of(template: str) -> str:
    return template.format(**VALUES) + ("?wait=false" if template == "/v1/events" else "")


@pytest.mark.asyncio
async def test_every_route_of_the_api_has_an_entry_and_every_entry_a_route(
    sqlite_office: Office,
) -> None:
    assert sqlite_office.routes() == set(ACCESS)


def test_only_health_sign_in_webhooks_and_the_witness_are_open() -> None:
    assert {path for (_, path), allowed in ACCESS.items() if allowed == PUBLIC} == {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v1/auth/token",
        "/v1/hooks/{sensor_id}",
        "/v1/witness/add-checkpoint",
        "/v1/witness/{origin_digest}/checkpoint",
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("entry", [each for each in ACCESS if ACCESS[each] != PUBLIC], ids=" ".join)
async def test_a_route_lets_in_exactly_its_roles(
    sqlite_office: Office, entry: tuple[str, str]
) -> None:
    office = sqlite_office
    method, template = entry
    allowed = ACCESS[entry]
    assert isinstance(allowed, frozenset)
    for role in Role:
        answer = await office.call(method, path_of(template), role)
        assert answer.status_code != 401
        assert (answer.status_code == 403) == (role not in allowed), f"{role}: {answer.text}"
        if role not in allowed:
            assert all(each in answer.json()["detail"] for each in allowed)
    nobody = await office.call(method, path_of(template))
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.asyncio
async def test_a_user_with_two_roles_may_do_what_either_may(sqlite_office: Office) -> None:
    office = sqlite_office
    order = {
        "username": "both",
        "display_name": "Both",
        "password": "correct horse battery",
        "roles": ["admin", "auditor"],
    }
    await office.post("/v1/users", "admin", json=order)
    answer = await office.sign_in("both", "correct horse battery")
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await office.get("/v1/audit/entries", headers=headers)).status_code == 200
    assert (await office.get("/v1/users", headers=headers)).status_code == 200
    assert (await office.post("/v1/alerts", headers=headers, json={})).status_code == 403
