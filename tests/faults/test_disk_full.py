"""A disk that is really full: nothing is answered 202 that is not there, and the node goes on when there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.alerts import sample_alert
from support.desks import running_office
from support.disks import fill, small_disk

BODY = {"to": ["FI"], "tlp": "GREEN", "alert": sample_alert()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


@pytest.mark.asyncio
async def test_a_full_disk_is_a_503_and_nothing_that_was_accepted_is_missing(
    disk: Path,
) -> None:
    async with running_office(f"sqlite:///{disk / 'node.db'}") as office:
        await office.post("/v1/alerts", "operator", json=BODY)
        accepted: list[str] = []
        ballast = fill(disk)
        for _ in range(200):
            answer = await office.post("/v1/alerts", "operator", json=BODY)
            if answer.status_code == 503:
                break
            assert answer.status_code == 202
            accepted.append(answer.json()["id"])
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Traceback" not in answer.text
        ballast.unlink()
        again = await office.post("/v1/alerts", "operator", json=BODY)
        assert again.status_code == 202
        for alert_id in [*accepted, again.json()["id"]]:
            assert (await office.get(f"/v1/alerts/{alert_id}", "auditor")).status_code == 200
