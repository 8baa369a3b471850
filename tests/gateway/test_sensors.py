"""Sensors: registered, listed, given new secrets, disabled; and never shown with their secret again."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from support.alerts import sample_alert
from support.desks import Limits, Office, running_office
from varde_gateway.flow.faults import Invalid
from varde_gateway.flow.people.sensors import parse_secret
from varde_gateway.store.sensors import (
    POSTS_KEPT_MILLISECONDS,
    find_post,
    find_sensor,
    forget_old_posts,
)

pytestmark = pytest.mark.asyncio
READING = json.dumps({"alert": sample_alert()}).encode()
ORDER: dict[str, Any] = {"id": "camera-1", "name": "Camera 1", "to": ["FI"], "tlp": "GREEN"}


async def test_a_registered_sensor_can_post_with_the_secret_that_is_shown_once(
    office: Office,
) -> None:
    answer = await office.post("/v1/sensors", "admin", json=ORDER)
    assert answer.status_code == 201
    secret = answer.json()["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    posted = await office.hook(READING, "m1", sensor="camera-1", secret=secret)
    assert posted.status_code == 202
    assert [each["to"] for each in posted.json()["deliveries"]] == ["FI"]
    for path in ("/v1/sensors", "/v1/sensors/camera-1"):
        shown = await office.get(path, "auditor")
        assert secret not in shown.text
        assert '"secret"' not in shown.text
    assert [each["detail"] for each in await office.audit("sensor_changed")][-1] == "registered"


async def test_the_secret_does_not_stand_in_the_database(office: Office) -> None:
    answer = await office.post("/v1/sensors", "admin", json=ORDER)
    raw = base64.b64decode(answer.json()["secret"].removeprefix("whsec_"))
    sensor = await office.node.desk.ledger.read(lambda c: find_sensor(c, "camera-1"))
    assert sensor is not None
    assert sensor.wrapped_secret.startswith(b"sensor-wrap|camera-1|")
    assert raw not in sensor.wrapped_secret


async def test_after_a_rotation_only_the_new_secret_signs(office: Office) -> None:
    first = (await office.post("/v1/sensors", "admin", json=ORDER)).json()["secret"]
    rotated = await office.post("/v1/sensors/camera-1/rotate", "admin")
    assert rotated.status_code == 200
    second = rotated.json()["secret"]
    assert second != first
    old = await office.hook(READING, "m1", sensor="camera-1", secret=first)
    new = await office.hook(READING, "m2", sensor="camera-1", secret=second)
    assert (old.status_code, new.status_code) == (401, 202)


async def test_sensors_are_listed_in_pages_by_id(office: Office) -> None:
    for number in range(3):
        await office.post("/v1/sensors", "admin", json=ORDER | {"id": f"camera-{number}"})
    page = (await office.get("/v1/sensors?limit=3", "admin")).json()
    rest = (await office.get(f"/v1/sensors?limit=3&cursor={page['next_cursor']}", "admin")).json()
    names = [each["id"] for each in page["items"] + rest["items"]]
    assert names == ["camera-0", "camera-1", "camera-2", "fence"]
    assert rest["next_cursor"] is None
    assert page["items"][0]["hook"] == "/v1/hooks/camera-0"


async def test_a_taken_id_is_a_conflict(office: Office) -> None:
    assert (await office.post("/v1/sensors", "admin", json=ORDER)).status_code == 201
    assert (await office.post("/v1/sensors", "admin", json=ORDER)).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        {"id": "Camera 1"},
        {"id": "x" * 65},
        {"id": ""},
        {"name": ""},
        {"name": "a\nb"},
        {"to": []},
        {"to": ["XX"]},
        {"to": ["EE"]},
        {"to": "FI"},
        {"tlp": "PURPLE"},
        {"more": 1},
    ],
)
async def test_a_sensor_of_another_shape_is_refused_with_the_place(
    office: Office, change: dict[str, Any]
) -> None:
    answer = await office.post("/v1/sensors", "admin", json=ORDER | change)
    assert answer.status_code == 422, answer.text
    assert (await office.get("/v1/sensors/camera-1", "admin")).status_code == 404


@pytest.mark.parametrize("action", ["rotate", "disable", "enable"])
async def test_a_sensor_that_does_not_exist_is_not_found(office: Office, action: str) -> None:
    assert (await office.post(f"/v1/sensors/nothing/{action}", "admin")).status_code == 404
    assert len(await office.audit("sensor_changed")) == 1


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "whsec_%", "A" * 44, "whsec_" + "A" * 43]
)
async def test_a_secret_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_secret(text)


async def test_a_sensor_that_posts_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    limits = Limits(sensor_requests_per_minute=3)
    async with running_office(f"sqlite:///{tmp_path / 'node.db'}", limits=limits) as office:
        secret = (await office.post("/v1/sensors", "admin", json=ORDER)).json()["secret"]
        statuses = [(await office.hook(READING, f"m{number}")).status_code for number in range(5)]
        assert statuses == [202, 202, 202, 429, 429]
        other = await office.hook(READING, "m1", sensor="camera-1", secret=secret)
        assert other.status_code == 202


async def test_old_posts_are_forgotten_after_thirty_days_and_not_before(office: Office) -> None:
    await office.hook(READING, "m1")
    for past, kept in ((0, True), (1, False)):
        office.clock.ms += past or POSTS_KEPT_MILLISECONDS
        await office.node.desk.ledger.write(forget_old_posts)
        found = await office.node.desk.ledger.read(lambda c: find_post(c, "fence", "m1"))
        assert (found is not None) == kept
