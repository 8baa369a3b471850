"""A sensor's webhook: signed messages become alerts once; everything else is refused and says why."""

import asyncio
import json
from typing import Any

import pytest

from support.alerts import sample_alert
from support.desks import SECRET, Office, sign_webhook
from varde.alert import parse_alert
from varde_gateway.cap import format_cap_xml

pytestmark = pytest.mark.asyncio


def reading(**overrides: Any) -> bytes:
    return json.dumps({"alert": sample_alert(**overrides)}).encode()


async def reasons(office: Office) -> list[str]:
    return [each["detail"] for each in await office.audit("sensor_refused")]


async def alerts(office: Office) -> list[dict[str, Any]]:
    answer = await office.get("/v1/alerts?limit=200", "auditor")
    return list(answer.json()["items"])


async def test_a_signed_reading_becomes_an_alert_to_the_sensors_own_recipients(
    office: Office,
) -> None:
    answer = await office.hook(reading(), "msg_1")
    assert answer.status_code == 202
    assert [each["to"] for each in answer.json()["deliveries"]] == ["FI", "LV"]
    (alert,) = await alerts(office)
    assert alert["id"] == answer.json()["id"]
    assert alert["author"] == "sensor/fence"
    assert alert["tlp"] == "AMBER"
    (entry,) = await office.audit("sensor_accepted")
    assert {"label": "document", "value": alert["id"]} in entry["subjects"]
    assert {"label": "webhook", "value": "msg_1"} in entry["subjects"]


async def test_recipients_and_marking_of_the_message_win_over_the_sensors_own(
    office: Office,
) -> None:
    body = json.dumps({"to": ["LV"], "tlp": "GREEN", "alert": sample_alert()}).encode()
    answer = await office.hook(body, "msg_1")
    assert [each["to"] for each in answer.json()["deliveries"]] == ["LV"]
    assert (await alerts(office))[0]["tlp"] == "GREEN"


async def test_a_bare_cap_object_is_taken_and_gets_the_documents_id_where_it_has_none(
    office: Office,
) -> None:
    alert = sample_alert()
    del alert["identifier"]
    answer = await office.hook(json.dumps(alert).encode(), "msg_1")
    assert answer.status_code == 202, answer.text
    assert answer.json()["identifier"] == answer.json()["id"]


@pytest.mark.parametrize("media_type", ["application/cap+xml", "application/xml", "text/xml"])
async def test_cap_xml_is_taken(office: Office, media_type: str) -> None:
    body = format_cap_xml(parse_alert(sample_alert()))
    answer = await office.hook(body, "msg_1", media_type=f"{media_type}; charset=utf-8")
    assert answer.status_code == 202, answer.text
    assert answer.json()["identifier"] == sample_alert()["identifier"]


async def test_a_message_with_several_signatures_is_taken_when_one_is_right(
    office: Office,
) -> None:
    right = sign_webhook(SECRET, "msg_1", str(office.clock() // 1000), reading())
    answer = await office.hook(reading(), "msg_1", signature=f"v1a,xx v1,AAAA {right}")
    assert answer.status_code == 202


async def test_a_wrong_signature_is_refused_and_recorded(office: Office) -> None:
    other = "whsec_" + "A" * 43 + "="
    cases: list[dict[str, Any]] = [
        {"secret": other},
        {"signed_body": b"{}"},
        {"signature": "v1,"},
        {"signature": "v1,%%%"},
        {"signature": "v2," + sign_webhook(SECRET, "m", "1", b"")[3:]},
        {"sensor": "unknown"},
        {"sensor": "NO SUCH"},
        {"at": "now"},
        {"at": "-5"},
    ]
    for number, case in enumerate(cases):
        answer = await office.hook(reading(), f"msg_{number}", **case)
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"]
    assert "signature" in (await office.hook(reading(), "m", secret=other)).json()["detail"]
    assert set(await reasons(office)) == {"bad_signature"}
    assert await alerts(office) == []


async def test_a_signature_for_one_message_does_not_fit_another_id_or_time(office: Office) -> None:
    now = office.clock() // 1000
    signature = sign_webhook(SECRET, "msg_1", str(now), reading())
    assert (await office.hook(reading(), "msg_2", signature=signature)).status_code == 401
    later = await office.hook(reading(), "msg_1", at=now + 1, signature=signature)
    assert later.status_code == 401


async def test_an_id_with_a_full_stop_is_refused_as_it_has_two_readings(office: Office) -> None:
    assert (await office.hook(reading(), "msg.1")).status_code == 401


@pytest.mark.parametrize("seconds", [-301, 301])
async def test_a_message_more_than_five_minutes_off_is_refused_and_says_so(
    office: Office, seconds: int
) -> None:
    answer = await office.hook(reading(), "msg_1", at=office.clock() // 1000 + seconds)
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:varde:problem:stale-webhook"
    assert "5 minutes" in answer.json()["detail"]
    assert await reasons(office) == ["stale"]
    assert await alerts(office) == []


@pytest.mark.parametrize("seconds", [-300, 300])
async def test_a_message_five_minutes_off_is_taken(office: Office, seconds: int) -> None:
    answer = await office.hook(reading(), "msg_1", at=office.clock() // 1000 + seconds)
    assert answer.status_code == 202


async def test_a_repeated_message_is_a_conflict_that_names_its_alert(office: Office) -> None:
    first = await office.hook(reading(), "msg_1")
    for body in (reading(), reading(note="another")):
        again = await office.hook(body, "msg_1")
        assert again.status_code == 409
        assert again.json()["type"] == "urn:varde:problem:repeated-webhook"
        assert again.json()["alert"] == first.json()["id"]
    assert len(await alerts(office)) == 1
    assert await reasons(office) == ["repeated", "repeated"]


async def test_of_the_same_message_many_times_at_once_exactly_one_becomes_an_alert(
    office: Office,
) -> None:
    answers = await asyncio.gather(*(office.hook(reading(), "msg_1") for _ in range(8)))
    assert sorted(each.status_code for each in answers) == [202] + [409] * 7
    assert len(await alerts(office)) == 1


@pytest.mark.parametrize(
    ("body", "media_type", "status", "word"),
    [
        (b"{", "application/json", 400, "JSON"),
        (b"[]", "application/json", 400, "object"),
        (b'{"alert":{},"alert":{}}', "application/json", 400, "twice"),
        (b'{"alert":{}}', "application/json", 422, "status"),
        (b'{"reading":5}', "application/json", 422, "reading"),
        (b"<alert/>", "application/cap+xml", 422, "alert"),
        (b"5", "text/plain", 415, "text/plain"),
    ],
)
async def test_a_signed_body_that_is_no_alert_is_refused_with_the_reason(
    office: Office, body: bytes, media_type: str, status: int, word: str
) -> None:
    answer = await office.hook(body, "msg_1", media_type=media_type)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]
    assert await reasons(office) == ["invalid"]


async def test_a_refused_body_does_not_use_up_its_id(office: Office) -> None:
    await office.hook(b"{}", "msg_1")
    assert (await office.hook(reading(), "msg_1")).status_code == 202


async def test_a_message_over_the_sensors_size_is_refused(office: Office) -> None:
    answer = await office.hook(b" " * (256 * 1024 + 1), "msg_1")
    assert answer.status_code == 413
    assert await reasons(office) == ["too_large"]


async def test_a_disabled_sensor_is_refused_until_it_is_enabled(office: Office) -> None:
    await office.post("/v1/sensors/fence/disable", "admin")
    answer = await office.hook(reading(), "msg_1")
    assert answer.status_code == 403
    assert await reasons(office) == ["disabled"]
    await office.post("/v1/sensors/fence/enable", "admin")
    assert (await office.hook(reading(), "msg_1")).status_code == 202


async def test_who_guesses_signatures_runs_into_a_limit_and_is_recorded_a_bounded_number_of_times(
    office: Office,
) -> None:
    for number in range(60):
        answer = await office.hook(reading(), f"m{number}", signature="v1,AAAA")
        assert answer.status_code == 401
    for number in range(5):
        assert (await office.hook(reading(), f"n{number}")).status_code == 429
    recorded = await reasons(office)
    assert recorded.count("bad_signature") == 60
    assert recorded.count("too_many") == 1
