"""A large file beside an alert, with real processes: killed in the middle, resumed, and the same at the other end."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.alerts import sample_alert
from support.running import Federation, running_federation, wait_for

pytestmark = pytest.mark.processes
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def coast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with running_federation(
        tmp_path_factory.mktemp("attachments") / "demo", ["EE", "FI", "LV"]
    ) as running:
        yield running


def send(coast: Federation, content: bytes, to: list[str]) -> str:
    operator = coast.person("EE", "operator")
    uploaded = operator.post(
        "/v1/attachments",
        content=content,
        params={"name": "orthophoto.tif"},
        headers={"Content-Type": "image/tiff"},
    )
    assert uploaded.status_code == 201, uploaded.text
    sent = operator.post(
        "/v1/alerts",
        json={
            "to": to,
            "tlp": "AMBER",
            "alert": sample_alert(),
            "attachments": [uploaded.json()["id"]],
        },
    )
    assert sent.status_code == 202, sent.text
    return str(sent.json()["id"])


def file_at(coast: Federation, nation: str, alert_id: str) -> dict[str, Any] | None:
    """The file as the nation's API tells it; None while the alert, or the node, is away."""
    try:
        alert = coast.person(nation, "officer").alert(alert_id)
    except httpx.TransportError:
        return None
    if alert is None:
        return None
    (file,) = alert["attachments"]
    return dict(file)


def complete(coast: Federation, nation: str, alert_id: str) -> dict[str, Any] | None:
    file = file_at(coast, nation, alert_id)
    return file if file is not None and file["state"] == "complete" else None


def content_at(coast: Federation, nation: str, file: dict[str, Any]) -> bytes:
    answer = coast.person(nation, "officer").get(f"/v1/attachments/{file['id']}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_50_megabytes_come_whole_although_relay_and_gateway_are_killed_on_the_way(
    coast: Federation,
) -> None:
    content = os.urandom(50 * MEGABYTE)
    alert_id = send(coast, content, ["FI"])
    parts = Path(coast.nation("FI")["home"]) / "attachments"

    def begun() -> bool:
        return any(each.stat().st_size > MEGABYTE for each in parts.glob("*.part"))

    wait_for(begun, 20, "the first megabyte is at FI")
    for part in ("relay", "gateway"):
        former = coast.kill("FI", part)
        coast.wait_restarted("FI", part, former)
    file = wait_for(lambda: complete(coast, "FI", alert_id), 60, "the file is whole at FI")
    assert file["received"] == file["size"] == len(content)
    found = content_at(coast, "FI", file)
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()
    assert not [*parts.glob("*.part")]
    entries = coast.person("FI", "auditor").get(
        "/v1/audit/entries", params={"kind": "attachment_complete", "subject": alert_id}
    )
    assert len(entries.json()["items"]) == 1


def test_every_recipient_has_the_same_file(
    coast: Federation,
) -> None:
    content = os.urandom(3 * MEGABYTE + 17)
    alert_id = send(coast, content, ["FI", "LV"])
    for nation in ("FI", "LV"):
        file = wait_for(
            lambda nation=nation: complete(coast, nation, alert_id),
            30,
            f"the file is whole at {nation}",
        )
        assert content_at(coast, nation, file) == content


def test_a_nation_that_was_not_addressed_has_nothing_of_it(coast: Federation) -> None:
    content = b"for FI alone" * 30_000
    alert_id = send(coast, content, ["FI"])
    file = wait_for(lambda: complete(coast, "FI", alert_id), 30, "the file is whole at FI")
    assert coast.person("LV", "officer").get(f"/v1/attachments/{file['id']}").status_code == 404
    assert file_at(coast, "LV", alert_id) is None


def test_alerts_are_not_delayed_by_50_megabytes_beside_them(coast: Federation) -> None:
    alert_id = send(coast, os.urandom(50 * MEGABYTE), ["FI"])
    operator = coast.person("EE", "operator")
    order = {"to": ["FI"], "tlp": "AMBER", "alert": sample_alert()}
    for _ in range(10):
        sent = operator.post("/v1/alerts", json=order).json()["id"]
        wait_for(
            lambda sent=sent: coast.person("FI", "officer").alert(sent),
            2,
            "an alert overtakes the file",
        )
    file = wait_for(lambda: complete(coast, "FI", alert_id), 60, "the file is whole at FI")
    assert file["size"] == 50 * MEGABYTE
