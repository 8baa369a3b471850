"""Files over HTTP: taken in as a stream, given out to be saved, and named in alerts; what is wrong is said."""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.alerts import sample_alert
from support.desks import Office
from varde.blob import MAX_ATTACHMENT_BYTES
from varde.encoding import sha256_base64url

pytestmark = pytest.mark.asyncio
CONTENT = b"%PDF-1.7 " + bytes(200_000)
PDF = {"Content-Type": "application/pdf"}
NO_SUCH = "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b"


async def upload(
    office: Office, content: Any = CONTENT, name: str = "plan.pdf", **headers: str
) -> dict[str, Any]:
    answer = await office.post(
        "/v1/attachments",
        "operator",
        content=content,
        params={"name": name},
        headers=PDF | headers,
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/attachments/{found['id']}"
    return found


async def test_a_file_is_uploaded_named_listed_and_read(office: Office) -> None:
    uploaded = await upload(office)
    assert uploaded == {
        "id": uploaded["id"],
        "name": "plan.pdf",
        "media_type": "application/pdf",
        "size": len(CONTENT),
        "digest": sha256_base64url(CONTENT),
    }
    order = {"to": ["FI"], "alert": sample_alert(), "attachments": [uploaded["id"]]}
    sent = await office.post("/v1/alerts", "operator", json=order)
    assert sent.status_code == 202, sent.text
    alert = (await office.get(f"/v1/alerts/{sent.json()['id']}", "auditor")).json()
    assert alert["attachments"] == [
        {**uploaded, "state": "complete", "received": len(CONTENT), "waiting_for": None}
    ]
    for role in ("operator", "officer", "approver", "auditor"):
        read = await office.get(f"/v1/attachments/{uploaded['id']}", role)
        assert read.status_code == 200
        assert read.content == CONTENT
    again = await office.get("/v1/alerts", "officer")
    assert again.json()["items"][0]["attachments"] == alert["attachments"]


async def test_an_alert_without_files_says_so(office: Office) -> None:
    order = {"to": ["FI"], "alert": sample_alert()}
    sent = await office.post("/v1/alerts", "operator", json=order)
    alert = (await office.get(f"/v1/alerts/{sent.json()['id']}", "auditor")).json()
    assert alert["attachments"] == []


async def test_a_file_is_given_out_to_be_saved_and_never_shown_in_place(
    sqlite_office: Office,
) -> None:
    office = sqlite_office
    name = 'jõgi "14"; x.html'
    uploaded = await upload(
        office, b"<script>alert(1)</script>", name, **{"Content-Type": "text/html"}
    )
    before_it_is_sent = await office.get(f"/v1/attachments/{uploaded['id']}", "officer")
    assert before_it_is_sent.status_code == 404
    read = await office.get(f"/v1/attachments/{uploaded['id']}", "operator")
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert read.headers["cache-control"] == "no-store"
    assert read.headers["content-length"] == "25"
    digest = base64.b64encode(hashlib.sha256(read.content).digest()).decode()
    assert read.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert read.headers["content-disposition"] == (
        'attachment; filename="j_gi _14__ x.html"; '
        "filename*=UTF-8''j%C3%B5gi%20%2214%22%3B%20x.html"
    )


async def test_a_stream_of_unknown_length_is_taken_up_to_the_limit_and_no_further(
    sqlite_office: Office,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1024 * 1024)

    async def two_megabytes() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield bytes(1024 * 1024)

    office = sqlite_office
    assert (await upload(office, two_megabytes()))["size"] == 2 * 1024 * 1024
    before = await office.rows()
    answer = await office.post(
        "/v1/attachments", "operator", content=endless(), params={"name": "x"}, headers=PDF
    )
    assert answer.status_code == 413
    announced = await office.post(
        "/v1/attachments",
        "operator",
        content=b"",
        params={"name": "x"},
        headers=PDF | {"Content-Length": str(MAX_ATTACHMENT_BYTES + 1)},
    )
    assert announced.status_code == 413
    assert await office.rows() == before
    assert len([*office.node.files._folder.iterdir()]) == 1


async def test_other_bodies_are_still_limited_to_a_megabyte(sqlite_office: Office) -> None:
    answer = await sqlite_office.post(
        "/v1/alerts", "operator", content=bytes(1024 * 1024 + 1), headers=PDF
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("name", "headers", "path"),
    [
        ("../plan.pdf", PDF, "name"),
        ("a\u202efdp.exe", PDF, "name"),
        ("x" * 129, PDF, "name"),
        ("plan", {"Content-Type": "nothing"}, "Content-Type"),
    ],
)
async def test_a_name_or_type_that_cannot_be_signed_is_refused(
    sqlite_office: Office, name: str, headers: dict[str, str], path: str
) -> None:
    answer = await sqlite_office.post(
        "/v1/attachments", "operator", content=b"x", params={"name": name}, headers=headers
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["path"] == path


async def test_an_upload_is_repeated_safely_with_its_key(sqlite_office: Office) -> None:
    office = sqlite_office
    first = await upload(office, **{"Idempotency-Key": "one"})
    assert await upload(office, **{"Idempotency-Key": "one"}) == first
    other = await office.post(
        "/v1/attachments",
        "operator",
        content=b"other",
        params={"name": "plan.pdf"},
        headers=PDF | {"Idempotency-Key": "one"},
    )
    assert other.status_code == 409


async def test_a_file_that_is_not_there_is_named_by_its_place(sqlite_office: Office) -> None:
    office = sqlite_office
    for attachments, path in (
        ([NO_SUCH], "attachments[0]"),
        ("x", "attachments"),
        ([1], "attachments"),
    ):
        order = {"to": ["FI"], "alert": sample_alert(), "attachments": attachments}
        answer = await office.post("/v1/alerts", "operator", json=order)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == path
    assert (await office.get(f"/v1/attachments/{NO_SUCH}", "officer")).status_code == 404


async def test_an_update_takes_files_of_its_own(sqlite_office: Office) -> None:
    office = sqlite_office
    uploaded = await upload(office)
    order = {"to": ["FI"], "alert": sample_alert()}
    sent = (await office.post("/v1/alerts", "operator", json=order)).json()
    change = {"alert": {"note": "with a map"}, "attachments": [uploaded["id"]]}
    answer = await office.post(f"/v1/alerts/{sent['id']}/update", "operator", json=change)
    assert answer.status_code == 202, answer.text
    updated = (await office.get(f"/v1/alerts/{answer.json()['id']}", "officer")).json()
    assert [each["id"] for each in updated["attachments"]] == [uploaded["id"]]


async def test_a_sensor_cannot_name_files(sqlite_office: Office) -> None:
    office = sqlite_office
    uploaded = await upload(office)
    body = f'{{"alert": {{}}, "attachments": ["{uploaded["id"]}"]}}'.encode()
    answer = await office.hook(body, "msg-1")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "attachments"
