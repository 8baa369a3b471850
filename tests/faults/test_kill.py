"""Kill -9 of any part at any moment: nothing that was answered 202 is lost, nothing appears twice."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.alerts import headlined_alert, sample_alert
from support.running import Federation, Person, running_federation, wait_for
from support.tampering import tamper

pytestmark = pytest.mark.processes
ALERTS_PER_ROUND = 30


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with running_federation(tmp_path_factory.mktemp("kill") / "demo", ["EE", "FI"]) as running:
        yield running


def _send_many(operator: Person, accepted: list[str], seed: int) -> None:
    """Send with an Idempotency-Key each, again until there is an answer, as a client should."""
    for number in range(ALERTS_PER_ROUND):
        body = {"to": ["FI"], "tlp": "GREEN", "alert": headlined_alert(f"{seed}/{number}")}
        headers = {"Idempotency-Key": f"round-{seed}-{number}"}
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = operator.post("/v1/alerts", json=body, headers=headers)
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the gateway did not come back"
                time.sleep(0.05)
                continue
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
                break


@pytest.mark.parametrize("part", ["gateway", "relay", "broker"])
@pytest.mark.parametrize("nation", ["EE", "FI"])
def test_kill_9_of_a_part_loses_nothing_that_was_accepted_and_doubles_nothing(
    pair: Federation, nation: str, part: str
) -> None:
    seed = hash((nation, part)) % 1_000_000
    operator = pair.person("EE", "operator")
    accepted: list[str] = []
    sender = threading.Thread(target=_send_many, args=(operator, accepted, seed))
    sender.start()
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    former = pair.kill(nation, part)
    pair.wait_restarted(nation, part, former)
    sender.join()
    assert len(accepted) == len(set(accepted)) == ALERTS_PER_ROUND

    auditor = pair.person("FI", "auditor")

    def all_there() -> bool:
        try:
            return all(auditor.alert(each) for each in accepted)
        except httpx.TransportError:
            return False

    wait_for(all_there, 40, f"all {ALERTS_PER_ROUND} are at FI after kill -9 of {part} at {nation}")
    everything = _all_headlines(auditor)
    for number in range(ALERTS_PER_ROUND):
        assert everything.count(f"{seed}/{number}") == 1

    def all_receipted() -> bool:
        # The gateway that was killed may have taken in all of them before, and not be back yet.
        try:
            return all(operator.delivery(each, "FI")["state"] == "delivered" for each in accepted)
        except httpx.TransportError:
            return False

    wait_for(all_receipted, 40, "every receipt is back at EE")


def _all_headlines(auditor: Person) -> list[str]:
    headlines: list[str] = []
    cursor: str | None = None
    while True:
        page = auditor.get(
            "/v1/alerts", params={"limit": 200, **({"cursor": cursor} if cursor else {})}
        ).json()
        headlines += [each["alert"]["info"][0]["headline"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return headlines


def _run_for_one_alert(directory: Path) -> str:
    """Start a federation, have EE send FI one alert, and stop it; the alert's id."""
    with running_federation(directory, ["EE", "FI"]) as running:
        answer = running.person("EE", "operator").post(
            "/v1/alerts", json={"to": ["FI"], "tlp": "GREEN", "alert": sample_alert()}
        )
        return str(answer.json()["id"])


def test_a_federation_started_again_on_the_same_directory_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("again") / "demo"
    alert_id = _run_for_one_alert(directory)
    with running_federation(directory, ["EE", "FI"]) as running:
        received = wait_for(
            lambda: running.person("FI", "auditor").alert(alert_id), 15, "the alert is at FI"
        )
        assert received["id"] == alert_id


def test_a_node_tells_after_a_start_that_somebody_hid_an_alert_from_searches_of_its_log(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("hidden") / "demo"
    alert_id = _run_for_one_alert(directory)
    tamper(
        directory / "nations" / "EE" / "varde.db",
        f"DELETE FROM audit_subject WHERE value = '{alert_id}'",
    )
    with running_federation(directory, ["EE", "FI"]) as running:
        auditor = running.person("EE", "auditor")

        def told() -> list[Any]:
            query = {"kind": "log_index_changed"}
            return list(auditor.get("/v1/audit/entries", params=query).json()["items"])

        entries = wait_for(told, 15, "an entry says that the index of the log was changed")
        assert all("searches do not find it" in each["detail"] for each in entries), entries
