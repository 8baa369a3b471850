"""A disk that is really full: nothing is answered 202 that is not there, and the node goes on when there is room."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.alerts import sample_alert
from support.desks import running_office

BODY = {"to": ["FI"], "tlp": "GREEN", "alert": sample_alert()}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB of its own; needs root, as mounting does."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.asyncio
async def test_a_full_disk_is_a_503_and_nothing_that_was_accepted_is_missing(
    small_disk: Path,
) -> None:
    async with running_office(f"sqlite:///{small_disk / 'node.db'}") as office:
        await office.post("/v1/alerts", "operator", json=BODY)
        accepted: list[str] = []
        ballast = fill(small_disk)
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
