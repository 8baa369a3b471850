"""A broker whose disk was full and that stores nothing any more although there is room again, as nats-server does it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.alerts import headlined_alert
from support.disks import fill, small_disk
from support.running import Federation, running_federation, wait_for

pytestmark = pytest.mark.processes
NOTICED_SECONDS = 40.0
HEALED_SECONDS = 30.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """EE and FI, the store of each broker on a file system of its own."""
    with (
        running_federation(tmp_path_factory.mktemp("stuck") / "demo", ["EE", "FI"]) as running,
        ExitStack() as disks,
    ):
        running.stop()
        for nation in ("EE", "FI"):
            disks.enter_context(small_disk(store_of(running, nation)))
        running.start()
        yield running


def home_of(running: Federation, nation: str) -> Path:
    return Path(running.nation(nation)["home"])


def store_of(running: Federation, nation: str) -> Path:
    return home_of(running, nation) / "broker" / "store"


def send(running: Federation, headline: str) -> str:
    body = {"to": ["FI"], "tlp": "GREEN", "alert": headlined_alert(headline)}
    answer = running.person("EE", "operator").post("/v1/alerts", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def page(running: Federation, nation: str, part: str, path: str) -> httpx.Response:
    """A page of the gateway's or the relay's; its relay is two ports on."""
    url = httpx.URL(running.nation(nation)["url"])
    return httpx.get(url.copy_with(port=url.port + 2 * (part == "relay"), path=path))


def broker_says(running: Federation, nation: str, part: str) -> str:
    answer = page(running, nation, part, "/health/ready")
    found: dict[str, Any] = answer.json()
    said = str(found["checks"]["broker"] if part == "gateway" else found["broker"])
    assert (answer.status_code == 503) == (said not in ("ok", "connected")), answer.text
    return said


def doctor(running: Federation, nation: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "varde_gateway",
            "doctor",
            "--json",
            "--home",
            home_of(running, nation),
        ],
        capture_output=True,
        check=False,
    )
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "storing"]
    return dict(found)


def restarts(running: Federation, nation: str) -> int:
    answer = running.person(nation, "auditor").get(
        "/v1/audit/entries", params={"kind": "broker_restarted"}
    )
    assert answer.status_code == 200, answer.text
    return len(answer.json()["items"])


def arrived(running: Federation, alert_id: str) -> bool:
    return running.person("EE", "operator").delivery(alert_id, "FI")["state"] == "delivered"


def copies(running: Federation, headline: str) -> int:
    return running.person("FI", "auditor").get("/v1/alerts").text.count(f'"{headline}"')


def test_a_broker_that_stores_nothing_says_so_and_stores_again_by_itself_when_there_is_room(
    pair: Federation,
) -> None:
    store = store_of(pair, "EE")
    assert doctor(pair, "EE")["level"] == "ok"
    ballast = fill(store)
    waiting = send(pair, "while the disk is full")

    def is_named() -> bool:
        return all(
            "its disk is full" in broker_says(pair, "EE", each) for each in ("gateway", "relay")
        )

    wait_for(is_named, NOTICED_SECONDS, "gateway and relay say that the broker stores nothing")
    for part in ("gateway", "relay"):
        assert broker_says(pair, "EE", part).startswith("stores nothing in ")
        assert str(store) in broker_says(pair, "EE", part)
    assert "varde_broker_stores 0.0" in page(pair, "EE", "gateway", "/metrics").text
    assert "varde_relay_broker_stores 0.0" in page(pair, "EE", "relay", "/metrics").text
    found = doctor(pair, "EE")
    assert (found["level"], "Make room" in found["advice"]) == ("fail", True)

    def is_told() -> bool:
        delivery = pair.person("EE", "operator").delivery(waiting, "FI")
        return "our broker stores nothing" in (delivery["waiting_for"] or "")

    wait_for(is_told, NOTICED_SECONDS, "the delivery says what it waits for")
    assert restarts(pair, "EE") == 0

    ballast.unlink()
    begun = time.monotonic()
    wait_for(lambda: arrived(pair, waiting), HEALED_SECONDS, "the alert arrives")
    wait_for(
        lambda: (
            broker_says(pair, "EE", "gateway") == "ok"
            and broker_says(pair, "EE", "relay") == "connected"
        ),
        HEALED_SECONDS - (time.monotonic() - begun),
        "the node is ready",
    )
    print(f"healed after {time.monotonic() - begun:.1f} s")
    assert copies(pair, "while the disk is full") == 1
    assert restarts(pair, "EE") == 1
    assert doctor(pair, "EE")["level"] == "ok"
    assert "varde_broker_stores 1.0" in page(pair, "EE", "gateway", "/metrics").text


def test_a_broker_that_takes_nothing_from_the_peers_after_a_moment_without_room_heals_too(
    pair: Federation,
) -> None:
    ballast = fill(store_of(pair, "FI"))
    waiting = send(pair, "into a full disk")
    not_stored = 'varde_relay_not_stored_total{peer="EE"} 0.0'
    wait_for(
        lambda: not_stored not in page(pair, "FI", "relay", "/metrics").text,
        NOTICED_SECONDS,
        "the relay of FI could not store the alert",
    )
    ballast.unlink()
    begun = time.monotonic()
    wait_for(lambda: arrived(pair, waiting), HEALED_SECONDS, "the alert arrives")
    print(f"healed after {time.monotonic() - begun:.1f} s")
    assert copies(pair, "into a full disk") == 1
    assert restarts(pair, "FI") == 1
    assert restarts(pair, "EE") == 1
