"""The main job with real processes: lit in one nation, read, acknowledged and provable in the others."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lxml import etree

from support.alerts import headlined_alert, sample_alert
from support.running import Federation, wait_for

pytestmark = pytest.mark.processes
CAP_FILES = sorted((Path(__file__).parents[1] / "vectors" / "cap").glob("*.xml"))
XML = {"Content-Type": "application/cap+xml"}


def send(federation: Federation, nation: str, to: list[str], **overrides: Any) -> str:
    answer = federation.person(nation, "operator").post(
        "/v1/alerts", json={"to": to, "tlp": "AMBER", "alert": sample_alert(**overrides)}
    )
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["deliveries"] == [{"to": each, "state": "queued"} for each in sorted(to)]
    return str(body["id"])


def test_an_alert_is_at_both_other_nations_within_a_second_under_the_same_id(
    federation: Federation,
) -> None:
    federation.person("FI", "auditor"), federation.person("LV", "auditor")
    begun = time.monotonic()
    alert_id = send(federation, "EE", ["FI", "LV"])
    for nation in ("FI", "LV"):
        received = wait_for(
            lambda nation=nation: federation.person(nation, "auditor").alert(alert_id),
            1.0 - (time.monotonic() - begun),
            f"the alert is at {nation}",
        )
        assert received["id"] == alert_id
        assert received["from"] == "EE"
        assert received["direction"] == "in"
        assert received["tlp"] == "AMBER"


def test_the_sender_sees_delivered_with_the_signed_receipt_of_each_nation(
    federation: Federation,
) -> None:
    alert_id = send(federation, "EE", ["FI", "LV"])
    for nation in ("FI", "LV"):
        delivery = wait_for(
            lambda nation=nation: (
                found
                if (found := federation.person("EE", "operator").delivery(alert_id, nation))[
                    "state"
                ]
                == "delivered"
                else None
            ),
            3,
            f"delivered at {nation}",
        )
        assert delivery["receipt"]
        assert delivery["queued_at"] <= delivery["sent_at"]
        assert not delivery["overdue"]


def test_an_officers_acknowledgement_is_seen_by_the_sender_with_who_when_and_what(
    federation: Federation,
) -> None:
    alert_id = send(federation, "EE", ["FI", "LV"])
    officer = federation.person("FI", "officer")
    wait_for(lambda: officer.alert(alert_id), 3, "the alert is at FI")
    answer = officer.post(
        f"/v1/alerts/{alert_id}/acknowledgements",
        json={"response": "actioning", "note": "Patrol sent to the crossing."},
    )
    assert answer.status_code == 201, answer.text

    def answered() -> dict[str, Any] | None:
        alert = federation.person("EE", "operator").alert(alert_id)
        assert alert is not None
        return alert if alert["acknowledgements"] else None

    alert = wait_for(answered, 3, "the acknowledgement is at EE")
    (acknowledgement,) = alert["acknowledgements"]
    assert acknowledgement["nation"] == "FI"
    assert acknowledgement["officer"] == officer.username
    assert acknowledgement["response"] == "actioning"
    assert acknowledgement["note"] == "Patrol sent to the crossing."
    assert acknowledgement["at"].endswith("Z")
    states = {each["to"]: each for each in alert["deliveries"]}
    assert states["FI"]["state"] == "acknowledged"
    assert states["FI"]["displayed_at"] is not None
    assert states["LV"]["acknowledged_at"] is None


def test_a_nation_that_was_not_addressed_sees_nothing(federation: Federation) -> None:
    alert_id = send(federation, "EE", ["FI"])
    wait_for(lambda: federation.person("FI", "auditor").alert(alert_id), 3, "the alert is at FI")
    assert federation.person("LV", "auditor").alert(alert_id) is None


@pytest.mark.parametrize("path", CAP_FILES, ids=lambda path: path.stem)
def test_a_published_cap_file_comes_out_equivalent_and_valid_at_another_nation(
    federation: Federation, path: Path
) -> None:
    raw = path.read_bytes()
    answer = federation.person("EE", "operator").post(
        "/v1/alerts?to=FI,LV&tlp=GREEN", content=raw, headers=XML
    )
    assert answer.status_code == 202, answer.text
    alert_id = answer.json()["id"]
    for nation in ("FI", "LV"):
        auditor = federation.person(nation, "auditor")
        wait_for(lambda auditor=auditor: auditor.alert(alert_id), 5, f"it is at {nation}")
        out = auditor.get(f"/v1/alerts/{alert_id}", headers={"Accept": "application/cap+xml"})
        assert out.headers["content-type"].startswith("application/cap+xml")
        assert _elements(out.content) == _elements(raw)


def _elements(raw: bytes) -> list[tuple[str, str]]:
    """Every CAP element with its text, white space aside.

    Left out: what is empty, and the language where it is the one that CAP gives to an info without any.
    """
    found: list[tuple[str, str]] = []
    for each in etree.fromstring(raw).iter("{urn:oasis:names:tc:emergency:cap:1.2}*"):
        text = "".join((each.text or "").split())
        element = (etree.QName(each).localname, text)
        if "".join(each.itertext()).strip() and element != ("language", "en-US"):
            found.append(element)
    return found


def _webhook(
    federation: Federation,
    body: bytes,
    *,
    at: int | None = None,
    webhook_id: str,
    secret: str | None = None,
) -> httpx.Response:
    sensor = federation.nation("EE")["sensor"]
    timestamp = str(at if at is not None else int(time.time()))
    key = base64.b64decode((secret or sensor["secret"]).removeprefix("whsec_"))
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return httpx.post(
        f"{federation.nation('EE')['url']}/v1/hooks/{sensor['id']}",
        content=body,
        headers={
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{signature}",
        },
    )


def test_a_signed_sensor_reading_becomes_an_alert_at_the_other_nations_and_a_bad_one_does_not(
    federation: Federation,
) -> None:
    body = json.dumps({"alert": headlined_alert("Fence cut at post 14")}).encode()
    webhook_id = f"msg_{os.urandom(8).hex()}"
    accepted = _webhook(federation, body, webhook_id=webhook_id)
    assert accepted.status_code == 202, accepted.text
    alert_id = accepted.json()["id"]
    for nation in ("FI", "LV"):
        wait_for(
            lambda nation=nation: federation.person(nation, "auditor").alert(alert_id), 3, nation
        )

    repeated = _webhook(federation, body, webhook_id=webhook_id)
    assert repeated.status_code == 409
    assert alert_id in repeated.text
    old = _webhook(federation, body, webhook_id="msg_old", at=int(time.time()) - 301)
    assert old.status_code in (400, 401)
    assert "minutes" in old.json()["detail"]
    other_key = "whsec_" + base64.b64encode(b"k" * 32).decode()
    forged = _webhook(federation, body, webhook_id="msg_forged", secret=other_key)
    assert forged.status_code == 401
    assert "signature" in forged.json()["detail"]


@pytest.fixture
def exported(federation: Federation, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "audit.jsonl"
    with federation.person("EE", "auditor").client.stream("GET", "/v1/audit/export") as answer:
        assert answer.status_code == 200
        path.write_bytes(answer.read())
    yield path


def _verify(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "varde_gateway", "audit", "verify", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_exported_audit_log_verifies_offline(exported: Path) -> None:
    done = _verify(exported)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", ["changed", "deleted", "inserted", "swapped"])
def test_one_row_at_fault_in_an_exported_log_is_named(exported: Path, fault: str) -> None:
    lines = exported.read_text().splitlines()
    entries = [place for place, line in enumerate(lines) if '"leaf"' in line]
    place = entries[len(entries) // 2]
    index = json.loads(lines[place])["index"]
    match fault:
        case "changed":
            entry = json.loads(lines[place])
            entry["leaf"] = entry["leaf"].replace('"kind":"', '"kind":"not_', 1)
            lines[place] = json.dumps(entry)
        case "deleted":
            del lines[place]
        case "inserted":
            lines.insert(place, lines[place])
        case "swapped":
            following = entries[entries.index(place) + 1]
            lines[place], lines[following] = lines[following], lines[place]
    exported.write_text("\n".join(lines) + "\n")
    done = _verify(exported)
    assert done.returncode != 0
    assert str(index) in done.stdout + done.stderr
    assert fault in (done.stdout + done.stderr).lower()


def test_the_log_can_be_taken_from_the_home_alone_and_verifies(
    federation: Federation, tmp_path: Path
) -> None:
    home, out = federation.nation("EE")["home"], tmp_path / "EE.jsonl"
    words = ("audit", "export", "--home", home, "--out", str(out))
    subprocess.run([sys.executable, "-m", "varde_gateway", *words], timeout=60, check=True)
    done = _verify(out)
    assert done.returncode == 0, done.stdout + done.stderr
